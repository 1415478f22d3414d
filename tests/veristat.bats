# SPDX-License-Identifier: GPL-2.0-only
# The verifier's cost of every program against tests/veristat.csv, so that growth
# shows in review. `make veristat` writes that file.
# The verifier decides the same on the debug kernel.
# bats file_tags=nodebug
bats_require_minimum_version 1.5.0
load helpers

@test "veristat: every program loads, and costs what tests/veristat.csv says" {
	local line file prog verdict insns was bad=0
	declare -A recorded
	tool 0 "$B/veristat" -q -o csv -e file,prog,verdict,insns "$B"/obj/*.bpf.o
	while IFS=, read -r file prog verdict insns; do
		recorded[$file,$prog]=$insns
	done < <(sed 1d "$TOP/tests/veristat.csv")
	while IFS=, read -r file prog verdict insns; do
		[ "$file" != file_name ] || continue
		was=${recorded[$file,$prog]-}
		unset "recorded[$file,$prog]"
		[ "$verdict" = success ] || { echo "$file: $prog: $verdict"; bad=1; }
		# Another release of clang may shift a few; a tenth more is a change of the program.
		if [ -z "$was" ]; then
			echo "$file: $prog: not in tests/veristat.csv (make veristat)" && bad=1
		elif ((insns * 10 > was * 11)); then
			echo "$file: $prog: $insns instructions, recorded are $was (make veristat)" && bad=1
		fi
	done <<<"$output"
	for line in "${!recorded[@]}"; do
		echo "$line: recorded, but there is no such program (make veristat)" && bad=1
	done
	((bad == 0))
}
