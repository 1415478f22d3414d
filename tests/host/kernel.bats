# SPDX-License-Identifier: GPL-2.0-only
# The way of a patch: a commit in the tree, export, series, am, image, guest; and
# back. A copy of kernel/ is used, with the cache and the tree of this checkout.
bats_require_minimum_version 1.5.0
load ../helpers

setup_file() {
	local tree=$B/linux
	[[ -z ${KSRC-} || $KSRC -ef $tree ]] || return 0
	unset KSRC			# which would be another's tree to the copy
	# What somebody works on in the tree is not to become a test's commit.
	"$TOP/kernel/build" tree
	if [[ -n $(git -C "$tree" status --porcelain -uno) ||
	      $(git -C "$tree" rev-parse HEAD) != "$(git -C "$tree" rev-parse refs/skelkit/applied)" ]]; then
		echo "# build/linux has work of its own: make kernel-export first" >&3
		return 1
	fi
	export COPY=$BATS_FILE_TMPDIR/copy
	mkdir "$COPY"
	cp -r "$TOP/kernel" "$COPY"
}

# Tree, cache and build/ as they were, also after a test that failed half-way.
teardown_file() {
	local copy=$COPY/build/bzImage
	[ "${COPY-}" ] || return 0
	git -C "$B/linux" am --abort 2>/dev/null || :
	git -C "$B/linux" reset -q --hard refs/skelkit/applied
	"$TOP/kernel/build" image
	[[ ! -e $copy || $copy -ef $B/bzImage ]] || rm -r "$(dirname "$(readlink "$copy")")"
}

teardown() { :; }
setup() { [ "${COPY-}" ] || skip "KSRC: a tree without the series"; }

@test "kernel: a commit in the tree becomes a patch of its feature" {
	"$COPY/kernel/build" tree
	cd "$COPY/build/linux"
	sed -i 's/^\terr = rtnl_link_register/\tpr_info("skelkit was here\\n");\n&/' \
		drivers/net/dummy.c
	git -c user.name=Test -c user.email=test@example.com commit -qam "dummy: say that skelkit was here

A body that export and am must keep.

Upstream-state: Never, a test of skelkit's own"
	cd "$COPY"
	run -1 kernel/build export		# whose commit is it?
	[[ $output == *FEATURE=* ]]
	FEATURE=demo kernel/build export
	[ "$(grep -v '^#' kernel/series | tail -n 1)" = demo/0001-dummy-say-that-skelkit-was-here.patch ]
	head -n 1 kernel/demo/0001-*.patch | grep -q '^From 0000000000'
	cp -r kernel exported
}

@test "kernel: applied from the series, it exports to the same file" {
	"$TOP/kernel/build" tree		# this checkout's series: without it
	run ! grep -q skelkit "$B/linux/drivers/net/dummy.c"
	"$COPY/kernel/build" tree
	grep -q skelkit "$COPY/build/linux/drivers/net/dummy.c"
	"$COPY/kernel/build" export
	diff -r "$COPY/exported" "$COPY/kernel"
}

@test "kernel: work in the tree that is in no patch is never thrown away" {
	echo >>"$COPY/build/linux/drivers/net/dummy.c"
	run -1 "$TOP/kernel/build" tree
	[[ $output == *"work that is in no patch"* ]]
	git -C "$COPY/build/linux" checkout -q drivers/net/dummy.c
}

@test "kernel: a patch that does not apply stops the build and is named" {
	cp -r "$COPY/kernel" "$BATS_TEST_TMPDIR"
	sed -i 's/^ .*err.*/ no such line/' \
		"$BATS_TEST_TMPDIR"/kernel/demo/0001-*.patch
	run -1 "$BATS_TEST_TMPDIR/kernel/build" tree
	[[ $output == *"demo/0001-dummy-say-that-skelkit-was-here.patch does not apply"* ]]
}

@test "kernel: a symbol that Kconfig refuses stops the build and is named" {
	cp -r "$TOP/kernel" "$BATS_TEST_TMPDIR"
	echo CONFIG_NO_SUCH_SYMBOL=y >>"$BATS_TEST_TMPDIR/kernel/config"
	run -1 "$BATS_TEST_TMPDIR/kernel/build" image
	[[ $output == *"not kept: CONFIG_NO_SUCH_SYMBOL=y"* ]]
}

@test "kernel: the patched kernel boots, and says so" {
	"$COPY/kernel/build" image
	[ "$(readlink "$COPY/build/bzImage")" != "$(readlink "$B/bzImage")" ]
	run -0 "$TOP/tests/vm" -k "$COPY/build/bzImage" dmesg
	[[ $output == *"skelkit was here"* ]]
	[[ $output == *"skelkit@$("$COPY/kernel/build" id)"* ]]
}

@test "kernel: without the patch the old image comes from the cache" {
	run -0 "$TOP/kernel/build" image
	[[ $output != *KERNEL* ]]
	run ! grep -q skelkit "$B/linux/drivers/net/dummy.c"
	run -0 "$TOP/tests/vm" dmesg
	[[ $output != *"skelkit was here"* ]]
}

# Machines whose lists are empty, and those of cloud images, have only the sources.
@test "kernel: the mirror is found in deb822 and in one-line sources" {
	sed -n '/^mirror() {/,/^}/p' "$TOP/kernel/build" >"$BATS_TEST_TMPDIR/mirror"
	# shellcheck source=/dev/null
	source "$BATS_TEST_TMPDIR/mirror"
	# shellcheck source=/dev/null
	suite=$(source /etc/os-release && echo "$VERSION_CODENAME")
	etc=$BATS_TEST_TMPDIR/etc
	mkdir -p "$etc/sources.list.d"
	run ! mirror "$etc"

	printf '%s\n' '# a comment' "deb http://security.invalid $suite-security main" \
		"deb-src http://src.invalid $suite main" \
		"deb [arch=amd64 trusted=no] http://one-line.invalid/debian $suite main" >"$etc/sources.list"
	run -0 mirror "$etc"
	[ "$output" = http://one-line.invalid/debian ]

	printf '%s\n' 'Types: deb' 'URIs: http://security.invalid' "Suites: $suite-security" '' \
		'Types: deb deb-src' '# a comment' 'URIs: http://deb822.invalid/debian' \
		"Suites: $suite $suite-updates" 'Components: main' >"$etc/sources.list.d/debian.sources"
	run -0 mirror "$etc"
	[ "$output" = http://deb822.invalid/debian ]
}

@test "kernel: an archive that Debian did not sign is refused, and leaves nothing" {
	cd "$BATS_TEST_TMPDIR"
	packages=main/binary-amd64/Packages
	mkdir -p "repo/dists/trixie-backports/${packages%/*}" state/lists/partial
	cd repo/dists/trixie-backports
	printf '%s\n' 'Package: nothing' 'Version: 1' 'Architecture: amd64' >$packages
	printf '%s\n' 'Label: Debian' 'Suite: trixie-backports' "Date: $(date -Ru)" 'SHA256:' \
		" $(sha256sum $packages | cut -d' ' -f1) $(stat -c %s $packages) $packages" >Release
	cd "$BATS_TEST_TMPDIR"
	# its user has told the machine's apt to trust it
	echo "deb [arch=amd64 trusted=yes] file:$PWD/repo trixie-backports main" >sources.list
	printf '%s;\n' "Dir::Etc::SourceList \"$PWD/sources.list\"" 'Dir::Etc::SourceParts "-"' \
		"Dir::State \"$PWD/state\"" 'APT::Sandbox::User ""' >apt.conf
	export APT_CONFIG=$PWD/apt.conf SKELKIT_CACHE=$PWD/cache LC_ALL=C
	unset KERNEL_TARBALL
	apt-get -q update
	for verb in fetch stock; do
		run -100 "$COPY/kernel/build" "$verb"
		[[ $output == *"file:$PWD/repo trixie-backports "*"not signed"* ]]
		[ -z "$(find cache -name 'tmp.*' -o -path '*/source/*' -o -path '*/image/*')" ]
	done
}

@test "kernel: of Debian's own kernels it is the pinned release, or the newest of its series" {
	sed -n '/^stock_release() {/,/^}/p' "$TOP/kernel/build" >"$BATS_TEST_TMPDIR/stock_release"
	# shellcheck source=/dev/null
	source "$BATS_TEST_TMPDIR/stock_release"
	# shellcheck disable=SC2034 # for that function
	release=7.3.4 major=7.3
	of() { printf 'linux-binary-%s\n' "$@" | stock_release; }
	others=(7.3.4+deb13-cloud-amd64 unsigned-7.3.4+deb13-amd64 7.30.4+deb13-amd64 7.2.12+deb13-amd64)
	run -0 of 7.3.12+deb13-amd64 7.3.4+deb13-amd64 7.3.40+deb13-amd64 "${others[@]}"
	[ "$output" = 7.3.4+deb13-amd64 ]
	run -0 of 7.3.5+deb13-amd64 7.3.12+deb13-amd64 7.3+deb13-amd64 "${others[@]}"
	[ "$output" = 7.3.12+deb13-amd64 ]
	run -1 of "${others[@]}"
}
