# SPDX-License-Identifier: GPL-2.0-only
# The kernel's selftests that kernel/F/selftests names. The guest does not see the kernel
# tree: what is run as it is, is copied. Of bpf's test_progs only what the tests need is
# built, without its own Makefile, which builds all of it.
KSELF	 := $(KSRC)/tools/testing/selftests/bpf
KSPARTS	 := Documentation/netlink/specs tools/net/ynl/pyynl \
	    $(addprefix tools/testing/selftests/,net drivers/net bpf/prog_tests)
KSHELP	 := $(patsubst %,%_helpers,btf cap cgroup bpftool disasm io jit_disasm netlink network \
	    sysctl testing trace unpriv) disasm json_writer test_loader
KSFLAGS	 := -g -w -std=gnu11 -D_GNU_SOURCE -I$B/kself -Itests/kselftest -Ivmlinux -I$(KSELF) \
	    -I$(KSELF)/libarena/include -I$B/include -isystem $(UAPI) \
	    $(addprefix -I$(KSRC)/tools/,lib include arch/x86/include include/uapi)
KSBPF	 := -O2 --target=bpf -mcpu=v3 -fno-strict-aliasing -fms-extensions -D__TARGET_ARCH_x86 \
	    -DENABLE_ATOMICS_TESTS \
	    -idirafter /usr/include -idirafter /usr/include/$(shell $(CC) -print-multiarch)
# $(call kstests,F): the files of test_progs that feature F names; run tells which are not there
kstests	  = $(patsubst $(KSELF)/prog_tests/%.c,$B/kself/%.test.o,$(wildcard $(patsubst \
		%,$(KSELF)/prog_tests/%.c,$(shell sed -n 's,^bpf/\([^[:space:]]*\).*,\1,p' kernel/$1/selftests))))
# $(call ksobjs,NAME): the skeletons that a test includes, and the objects that it opens
ksobjs	  = $(addprefix $B/kself/,$(shell \
		sed -nE 's,.*"(\./)?([A-Za-z0-9_]+\.(skel\.h|bpf\.o))".*,\2,p' $(KSELF)/prog_tests/$1.c))

$B/kself/tree: $(KREADY)
	$(call msg,COPY,$@)
	$Qrm -rf $@ && mkdir -p $@
	$Qcd $(KSRC) && cp -r --parents $(KSPARTS) $(abspath $@)
	$Qchmod -R u+w $@ && touch $@
$B/kself/prog_tests/tests.h: $(KREADY)
	$(call msg,GEN,$@)
	$Qmkdir -p $(@D)
	$Qsed -nE 's/^void (serial_)?test_([a-zA-Z0-9_]+)\((void)?\).*/DEFINE_TEST(\2)/p' \
		$(KSELF)/prog_tests/*.c >$@
$B/kself/%.bpf.o: $(KSELF)/progs/%.c vmlinux/vmlinux.h $(KREADY) | $(HEADERS) $(BPFTOOL)
	$(call msg,BPF,$@)
	$Qmkdir -p $(@D)
	$Q$(CLANG) $(KSFLAGS) $(KSBPF) -c $< -o $@
$B/kself/%.skel.h: $B/kself/%.bpf.o
	$Q$(BPFTOOL) gen object $(@:.h=.o) $<
	$Q$(BPFTOOL) gen skeleton $(@:.h=.o) name $* >$@
$B/kself/%.test.o: $(KSELF)/prog_tests/%.c $(KREADY) $$(call ksobjs,$$*) | $(HEADERS)
	$(call msg,CC,$@)
	$Q$(CC) $(KSFLAGS) -c $< -o $@
$B/kself/%.o: $(KSELF)/%.c tests/kselftest/verification_cert.h $B/kself/prog_tests/tests.h | $(HEADERS)
	$(call msg,CC,$@)
	$Q$(CC) $(KSFLAGS) -c $< -o $@
$B/kself/helpers.a: $(KSHELP:%=$B/kself/%.o)
	$Qrm -f $@ && $(AR) rcs $@ $^
$B/kself/%/test_progs: kernel/%/selftests $$(call kstests,$$*) $B/kself/test_progs.o $B/kself/helpers.a $(LIBBPF)
	$(call msg,LINK,$@)
	$Qmkdir -p $(@D)
	$Q$(CC) -rdynamic $(filter %.o %.a,$^) -lelf -lz -lrt -lpthread -o $@
