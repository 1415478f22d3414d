# SPDX-License-Identifier: GPL-2.0-only
# One feature F = progs/F.bpf.c, tools/F.c and its parts tools/F-*.c, tests/F*.bats,
# tests/unit/F-*.c, tests/fuzz/F-*.c, kernel/F/. Adding one edits nothing here.
B	 := build
KSRC	 ?= $B/linux
CLANG	 ?= clang-19
PREFIX	 ?= /usr/local
FEATURES := $(patsubst progs/%.bpf.c,%,$(wildcard progs/*.bpf.c))

KTREE	 := $(abspath $B/linux)
KSRC	 := $(abspath $(strip $(KSRC)))
export KSRC
KREADY	 := $B/ready$(subst /,-,$(KSRC))
UAPI	 := $B/uapi/usr/include
LIBBPF	 := $B/libbpf/libbpf.a
YNL	 := $B/ynl/tools/net/ynl
BPFTOOL	 := $B/bpftool/bootstrap/bpftool
# libynl has a part per netlink family: only those that a source includes are built.
FAMILIES := $(sort $(shell sed -n 's/^\#include ["<]\(.*\)-user\.h[">].*/\1/p' \
	      $(wildcard tools/*.[ch] tests/*.c)))
# Named after them: with .SECONDARY a part that is missing would not be noticed.
LIBYNL	 := $B/ynl/libynl$(subst $() ,,$(FAMILIES:%=-%)).a

CFLAGS	 ?= -g -O2
WARN	 := -Wall -Wextra -Wno-unused-parameter -Werror
CPPFLAGS += -D_GNU_SOURCE -I$B/include -Iprogs -Itools -Iskel -I$B/tests -isystem $(UAPI) \
	    -isystem $(YNL)/lib -isystem $(YNL)/generated
LIBS	 := $(LIBBPF) $(LIBYNL)
LDLIBS	 := -Wl,--as-needed -ljansson -lzstd -lelf -lz
BPFFLAGS := -g -O2 $(WARN) --target=bpf -mcpu=v3 -fms-extensions -Wno-microsoft-anon-tag \
	    -D__TARGET_ARCH_x86 -isystem vmlinux -isystem $B/include -Iprogs
# With sanitizers gcc no longer sees what bounds a number that is printed.
SANFLAGS := -g -O1 -fno-omit-frame-pointer -fsanitize=address,undefined -Wno-format-truncation

ifneq ($V,1)
Q := @
MAKEFLAGS += --no-print-directory
endif
msg = @printf '  %-8s %s\n' $1 $(patsubst $B/%,%,$2)
# $(call parts,DIR,F): the objects of feature F's parts
parts = $(patsubst tools/%.c,$B/$1/%.o,$(wildcard tools/$2-*.c))
F = $(firstword $(subst -, ,$1))
names = $(patsubst tests/$1/%.c,$B/$1/%,$(wildcard tests/$1/*.c))

all: $(FEATURES:%=$B/%)			## build every tool
$(FEATURES): %: $B/%			## build one tool

# What everything else needs from the kernel tree. KSRC= names another tree.
$(KREADY): $(if $(filter $(KTREE),$(KSRC)),kernel/BASE kernel/series $(wildcard kernel/*/*.patch)) \
	   $(if $(wildcard $(KSRC)/Kbuild),,FORCE)
	$(if $(filter $(KTREE),$(KSRC)),$Qkernel/build tree)
	$Qmkdir -p $(@D) && touch $@
$(UAPI)/linux/version.h: $(KREADY)
	$(call msg,UAPI,$(UAPI))
	$Q$(MAKE) -s -C $(KSRC) O=$(abspath $B/uapi) headers
	$Qtouch $@
$(LIBBPF): $(KREADY)
	$(call msg,LIB,$@)
	$Qmkdir -p $(@D)
	$Q$(MAKE) -s -C $(KSRC)/tools/lib/bpf OUTPUT=$(abspath $(@D))/ \
		DESTDIR=$(abspath $B) prefix= $(abspath $@) install_headers
	$Qtouch $@
$(BPFTOOL): $(KREADY)
	$(call msg,BPFTOOL,$@)
	$Qmkdir -p $B/bpftool
	$Q$(MAKE) -s -C $(KSRC)/tools/bpf/bpftool OUTPUT=$(abspath $B/bpftool)/ \
		SKIP_CRYPTO=1 bootstrap
	$Qtouch $@
$B/bpftool/bpftool: $(BPFTOOL) vmlinux/vmlinux.h
	$(call msg,BPFTOOL,$@)
	$Q$(MAKE) -s -C $(KSRC)/tools/bpf/bpftool OUTPUT=$(abspath $B/bpftool)/ \
		SKIP_CRYPTO=1 SKIP_LLVM=1 SKIP_LIBBFD=1 CLANG=$(CLANG) LLVM_STRIP=$(subst clang,llvm-strip,$(CLANG)) \
		VMLINUX_H=$(abspath vmlinux/vmlinux.h) $(abspath $@)
	$Qtouch $@

# libynl generates code beside its sources, so it is built in a copy, and with the
# distribution's python3, which has the modules that `make deps` installs.
$(YNL)/Makefile.deps: $(KREADY)
	$Qrm -rf $B/ynl && mkdir -p $(YNL)
	$Qcp -r $(KSRC)/tools/net/ynl/. $(YNL)
	$Qchmod -R u+w $(YNL) && ln -s $(addprefix $(KSRC)/,Documentation include MAINTAINERS) $B/ynl
	$Qtouch $@
$(YNL)/lib/ynl.o: $(YNL)/Makefile.deps
	$Q$(MAKE) -s -C $(@D) ynl.o
$(YNL)/generated/%-user.o: $(YNL)/Makefile.deps
	$(call msg,YNL,$*)
	$QPATH=/usr/bin:$$PATH $(MAKE) -s -C $(@D) $(@F) >/dev/null
$(LIBYNL): $(YNL)/lib/ynl.o $(FAMILIES:%=$(YNL)/generated/%-user.o)
	$Qrm -f $@ && $(AR) rcs $@ $^

# BPF objects and their skeletons
define bpfobj
$(call msg,BPF,$@)
$Qmkdir -p $(@D)
$Q$(CLANG) $(BPFFLAGS) -MMD -MP -MT $@ -MF $(@:.o=.d) -c $< -o $@.tmp
$Q$(BPFTOOL) gen object $@ $@.tmp && rm $@.tmp
endef
define skeleton
$(call msg,SKEL,$@)
$Q$(BPFTOOL) gen skeleton $< name $(subst -,_,$(*F)) >$@
endef
$B/obj/%.bpf.o: progs/%.bpf.c vmlinux/vmlinux.h | $(LIBBPF) $(BPFTOOL)
	$(bpfobj)
$B/tests/%.bpf.o: tests/%.bpf.c vmlinux/vmlinux.h | $(LIBBPF) $(BPFTOOL)
	$(bpfobj)
skel/%.skel.h: $B/obj/%.bpf.o
	$(skeleton)
$B/tests/%.skel.h: $B/tests/%.bpf.o
	$(skeleton)

# C objects: for the tools (obj), for unit tests (san), for fuzz targets (fuzzobj)
define object
$(call msg,CC,$@)
$Qmkdir -p $(@D)
$Q$1 -std=gnu11 $(CPPFLAGS) $2 $(WARN) -MMD -MP -c $< -o $@
endef
HEADERS := $(UAPI)/linux/version.h $(LIBS)
SKELS	:= $(FEATURES:%=skel/%.skel.h)
TESTSKELS := $(patsubst tests/%.bpf.c,$B/tests/%.skel.h,$(wildcard tests/*.bpf.c tests/bench/*.bpf.c))
$B/obj/%.o: tools/%.c | $(HEADERS) $(SKELS)
	$(call object,$(CC),$(CFLAGS))
$B/tests/%.o: tests/%.c | $(HEADERS) $(TESTSKELS)
	$(call object,$(CC),$(CFLAGS))
$B/san/%.o: tools/%.c | $(HEADERS) $(SKELS)
	$(call object,$(CC),$(SANFLAGS))
$B/san/unit/%.o: tests/unit/%.c | $(HEADERS)
	$(call object,$(CC),$(SANFLAGS))
$B/fuzzobj/%.o: tools/%.c | $(HEADERS) $(SKELS)
	$(call object,$(CLANG),$(SANFLAGS) -fsanitize=fuzzer-no-link)
$B/fuzzobj/fuzz/%.o: tests/fuzz/%.c | $(HEADERS)
	$(call object,$(CLANG),$(SANFLAGS) -fsanitize=fuzzer-no-link)

.SECONDEXPANSION:
define link
$(call msg,LINK,$@)
$Qmkdir -p $(@D)
$Q$1 $(LDFLAGS) $(filter %.o,$^) $(filter %.a,$^) $(LIBS) $(LDLIBS) -o $@
endef
$(FEATURES:%=$B/%): $B/%: $B/obj/%.o $$(call parts,obj,$$*) $B/obj/common.o $(LIBS)
	$(call link,$(CC) $(CFLAGS))
$B/tests/%: $B/tests/%.o $$(if $$(findstring -,$$*),$B/obj/lib$$(call F,$$*).a $B/obj/common.o) $(LIBS)
	$(call link,$(CC) $(CFLAGS))
# Archives, so that a test links only the parts that it calls.
$B/obj/lib%.a: $$(call parts,obj,$$*)
	$Qrm -f $@ && $(AR) rcs $@ $^
$B/san/lib%.a: $$(call parts,san,$$*)
	$Qrm -f $@ && $(AR) rcs $@ $^
$B/fuzzobj/lib%.a: $$(call parts,fuzzobj,$$*)
	$Qrm -f $@ && $(AR) rcs $@ $^
$B/unit/%: $B/san/unit/%.o $B/san/lib$$(call F,$$*).a $B/san/common.o
	$(call link,$(CC) $(SANFLAGS))
$B/fuzz/%: $B/fuzzobj/fuzz/%.o $B/fuzzobj/lib$$(call F,$$*).a $B/fuzzobj/common.o
	$(call link,$(CLANG) $(SANFLAGS) -fsanitize=fuzzer)

TESTBINS := $(patsubst tests/%.c,$B/tests/%,$(filter-out %.bpf.c,$(wildcard tests/*.c))) \
	    $(patsubst tests/%.bpf.c,$B/tests/%.bpf.o,$(wildcard tests/*.bpf.c))
# veristat is one file of the selftests: built here, without their Makefile
VSRC	 := tools/testing/selftests/bpf/veristat.c tools/bpf/bpftool/json_writer.c
$B/veristat: $(LIBBPF)
	$(call msg,LINK,$@)
	$Q$(CC) -O2 -w -D_GNU_SOURCE -I$B/include $(addprefix -I$(KSRC)/tools/,include include/uapi bpf/bpftool) \
		$(addprefix $(KSRC)/,$(VSRC)) $< -lelf -lz -lm -o $@
testbins: all $(TESTBINS) $B/bpftool/bpftool $B/veristat
unit: $(call names,unit)		## build the unit tests
fuzz: $(call names,fuzz)		## build the fuzz targets

include $(wildcard tests/kselftest/build.mk)

deps:					## install what is missing (apt, as root)
	$Q.ci/deps install
deps-check:				## say what is missing
	$Q.ci/deps check
kernel-tree:				## the pinned kernel with our series, in build/linux
	$Qkernel/build tree
kernel:					## build the kernel of the test VM, or take it from the cache
	$Qkernel/build image
kernel-debug:				## the same with KASAN, lockdep and reference tracking
	$Qkernel/build image debug
kernel-stock:				## fetch Debian's own kernel, for what a stock kernel must do
	$Qkernel/build stock
kernel-prefixes:			## build and boot each commit of the series, or from N= on; an hour
	$Qkernel/build prefixes $N
kernel-export:				## write kernel/F from the commits in build/linux; FEATURE=F for new ones
	$Qkernel/build export
vmlinux: $(BPFTOOL)			## regenerate vmlinux/vmlinux.h from our kernel
	$Qkernel/build types

STRESS_SECONDS ?= 600
BENCHBINS := $(patsubst tests/%.c,$B/tests/%,$(filter-out %.bpf.c,$(wildcard tests/bench/*.c)))
bench-%: all $(BENCHBINS) $(if $(filter 1,$(VM)),kernel)	## measure feature F, as root; VM=1: in the VM, in instructions
	$Qtests/bench/$*

stress-%: testbins kernel-debug		## feature F at length, on the debug kernel; STRESS_SECONDS=N for each part
	tests/vm -d -t 86400 tests/stress/$* $(STRESS_SECONDS)

veristat: testbins kernel		## record the verifier's cost in tests/veristat.csv
	$Qtests/vm veristat -q -o csv -e file,prog,verdict,insns $B/obj/*.bpf.o >$B/veristat.csv
	$Qmv $B/veristat.csv tests/veristat.csv

# A VM for each suite, as many at a time as there are CPUs; each is shown when it is
# done. With two CPUs a VM each they would take twice as long.
# The largest files come first, so that none of them is left for the end.
JOBS	 ?= $(shell nproc)
together = $(MAKE) -k -j$(JOBS) -Otarget
BYSIZE	 := $(shell ls -S tests/*.bats)
VMSUITES := $(BYSIZE:tests/%.bats=vm-%)
# For the debug kernel, what is not tagged nodebug, for a reason that stands there, nor
# kmemleak, which has a debug kernel of its own.
DBSUITES := $(patsubst tests/%.bats,debug-%,$(shell grep -L 'bats file_tags=.*nodebug' $(BYSIZE)))
# What is tagged smp looks for races.
SMP	 := $(shell grep -l 'bats file_tags=.*smp' tests/*.bats)
cpus	 = -c $(if $(filter tests/$1.bats,$(SMP)),2,1)
# What is tagged stock is also run on Debian's own kernel, and what is tagged unpatched
# only there. Who brings the source (KSRC=, KERNEL_TARBALL=) may have no Debian archive.
STOCK	 := $(if $(filter $(KTREE),$(KSRC)),$(if $(KERNEL_TARBALL),,stock))
$(VMSUITES): vm-%:
	tests/vm $(call cpus,$*) -t 1800 bats -T --filter-tags '!unpatched' tests/$*.bats
stock:
	tests/vm -k $B/bzImage-stock -c 1 bats -T --filter-tags stock --filter-tags unpatched \
		$(shell grep -lE 'bats (test|file)_tags=.*(stock|unpatched)' tests/*.bats)
$(DBSUITES): debug-%:
	tests/vm -d $(call cpus,$*) bats -T --filter-tags '!nodebug,!unpatched,!kmemleak' tests/$*.bats
host:
	bats -T tests/host/ci.bats tests/host/unit.bats tests/host/vm.bats
kmemleak:
	tests/vm -l -c 1 bats -T --filter-tags kmemleak tests

# A recursive make each, since what they build needs what deps installs.
test: deps				## run every suite: the host's, and in the VM
	$Q$(MAKE) kernel
	$(STOCK:%=$Q$(MAKE) kernel-%)
	$Q$(MAKE) -j$(JOBS) testbins unit fuzz
	$Q$(together) host $(STOCK) $(VMSUITES)
test-debug: deps			## run the suites on the debug kernel, some with kmemleak
	$Q$(MAKE) kernel-debug
	$Q$(MAKE) -j$(JOBS) testbins
	$Q$(together) kmemleak $(DBSUITES)
SUITES := $(sort $(patsubst tests/%.bats,test-%,$(wildcard tests/*.bats)) $(FEATURES:%=test-%))
test-kernel: deps			## test the way of a patch into the kernel
	$Q$(MAKE) kernel
	bats -T tests/host/kernel.bats
test-unit: unit fuzz			## run unit tests and fuzz targets
	bats -T tests/host/unit.bats
$(SUITES): test-%: testbins kernel	## run one feature's suites in the VM
	tests/vm bats -T --filter-tags '!unpatched' $(wildcard tests/$*.bats tests/$*-*.bats)
lint: deps				## check the sources
	$Q$(MAKE) kernel all
	bats -T tests/host/lint.bats
KSELFTESTS := $(patsubst kernel/%/selftests,kselftest-%,$(wildcard kernel/*/selftests))
$(KSELFTESTS): kselftest-%: deps	## run upstream's tests of what feature F's patches change
	$Q$(MAKE) kernel
	$Q$(MAKE) -j$(JOBS) $B/kself/tree $B/kself/$*/test_progs
	tests/vm -t 1800 tests/kselftest/run $*
demo: deps				## see it work: a guided tour in the VM
	$Q$(MAKE) kernel testbins
	$Qtests/vm tests/demo
vm-shell: testbins kernel		## a shell in the VM
	$Qtests/vm -s -t 86400 bash -i

$B/man/%.1: $B/%
	$(call msg,MAN,$@)
	$Qmkdir -p $(@D)
	$Qhelp2man -N -n "$$($< --help | grep -m1 '^[^ ].*\.$$')" $< | \
		sed '/^EXAMPLES$$/,$${s/^EXAMPLES$$/.SH &/;s/^\.IP$$/&\n.nf/}' >$@
man: $(FEATURES:%=$B/man/%.1)		## make the man pages from --help
install: all man			## install tools and man pages below DESTDIR and PREFIX
	install -d $(DESTDIR)$(PREFIX)/bin $(DESTDIR)$(PREFIX)/share/man/man1
	install $(FEATURES:%=$B/%) $(DESTDIR)$(PREFIX)/bin
	install -m 644 $(FEATURES:%=$B/man/%.1) $(DESTDIR)$(PREFIX)/share/man/man1

clean:					## drop build output; the cache of kernels stays
	rm -rf $B skel/*.skel.h
help:					## this text
	@awk -F':.*## ' '/^[a-z%$$(].*## /{sub(/:.*/,"",$$1);sub(/.\(SUITES\)/,"test-F",$$1);sub(/.\(FEATURES\)/,"F",$$1);sub(/.\(KSELFTESTS\)/,"kselftest-F",$$1);sub(/%/,"F",$$1);printf "  %-16s %s\n",$$1,$$2}' Makefile

-include $(wildcard $(addprefix $B/,$(addsuffix /*.d,obj tests tests/bench san san/unit fuzzobj fuzzobj/fuzz)))
.PHONY: all clean demo deps deps-check fuzz help install kernel kernel-debug kernel-export kernel-prefixes \
	host kernel-stock kernel-tree kmemleak lint man stock test test-debug test-kernel test-unit \
	testbins unit veristat vm-shell vmlinux FORCE $(FEATURES) $(KSELFTESTS) $(SUITES) $(VMSUITES) $(DBSUITES)
.DELETE_ON_ERROR:
.SECONDARY:
