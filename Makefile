# tcpshim: libtcpshim.so, its tests and its demonstration. Build output goes to build/ alone.
#
#   make             build/libtcpshim.so, for it build/tcpshim-keeper and -relay, and the command build/tcpshim
#   make demo        two hosts in network namespaces, three transfers, what happened on each
#   make check       all test suites; ends with `N passed, N failed, N skipped`
#   make check-python  Python's own test suite on both stacks     make check-apps   all programs, large ones too
#   make check-accecn  accurate ECN against a Linux 7 of Debian's, which apt downloads, in a virtual machine
#   make docs-applications  docs/applications.md, from a run of all programs
#   make sim         SEEDS simulated runs from seed FIRST     make fuzz    each fuzzer for FUZZ_TIME seconds
#   make bench       kernel and user stack side by side, paired runs, 20 minutes; docs/results/
#   make bench-quick   the main ones in under 3 minutes     make bench-docs  docs/results/ from the last run
#   make bench-instructions  instructions of the hot paths (callgrind)     make bench-trace  what traces add
#   make bench-syscalls  system calls of real programs on both stacks, counted by strace
#   make coverage    lines of stack/ that the engine's tests reach, file by file
#   make soak        long simulation and 1 GB transfers       make lint    clang-tidy and cppcheck
#   make format      clang-format                             make clean
#   make install     to PREFIX (/usr/local) below DESTDIR: library, keeper, command, manual page, completions
#   make docs        what is generated in docs/
#   make install-deps  every Debian package that the above need
ifeq ($(origin CC),default)
CC := gcc
endif
BUILD ?= build
CFLAGS ?= -O2 -g

WARN := -Wall -Wextra -Werror
BASE := -std=gnu17 -I. -fno-strict-aliasing -fvisibility=hidden
SAN  := -fsanitize=address,undefined -fno-sanitize-recover=all -fno-omit-frame-pointer -O1 -g

SEEDS ?= 100000
FIRST ?= 1
FUZZ_TIME ?= 60
FUZZ_CC ?= clang
PYTHON := /usr/bin/python3

STACK_SRC := $(wildcard stack/*.c stack/*/*.c)
KEEPER_SRC := $(wildcard shim/keeper/*.c)
RELAY_SRC  := $(wildcard shim/relay/*.c)
COMMAND_SRC := $(wildcard shim/command/*.c shim/command/*/*.c)
SHIM_SRC  := $(filter-out $(KEEPER_SRC) $(RELAY_SRC) $(COMMAND_SRC),$(wildcard shim/*.c shim/*/*.c))
BENCH_SRC := $(wildcard bench/*.c bench/*/*.c)
TEST_SRC  := $(wildcard tests/unit/*.c tests/packet/*.c tests/sim/*.c tests/explore/*.c)
FUZZ_SRC  := $(wildcard tests/fuzz/fuzz_*.c)
FLOOD_SRC := $(wildcard tests/flood/*.c)
INTEROP_SRC := $(wildcard tests/interop/*.c)
HEADERS   := $(wildcard stack/*.h stack/*/*.h shim/*.h shim/*/*.h shim/*/*/*.h tests/*/*.h bench/*.h bench/*/*.h)

STACK_OBJ      := $(STACK_SRC:%.c=$(BUILD)/%.o)
SHIM_OBJ       := $(SHIM_SRC:%.c=$(BUILD)/%.o)
ASAN_STACK_OBJ := $(STACK_SRC:%.c=$(BUILD)/asan/%.o)
ASAN_TEST_OBJ  := $(TEST_SRC:%.c=$(BUILD)/asan/%.o)
FUZZ_STACK_OBJ := $(STACK_SRC:%.c=$(BUILD)/fuzz/obj/%.o)
BENCH_BIN      := $(addprefix $(BUILD)/bench/,rtt conn idle plain raw half family path cubic.so)
FUZZ_BIN       := $(FUZZ_SRC:tests/fuzz/%.c=$(BUILD)/fuzz/%)
KEEPER_OBJ     := $(KEEPER_SRC:%.c=$(BUILD)/%.o)
RELAY_OBJ      := $(RELAY_SRC:%.c=$(BUILD)/%.o)
COMMAND_OBJ    := $(COMMAND_SRC:%.c=$(BUILD)/%.o)
ALL_OBJ        := $(STACK_OBJ) $(SHIM_OBJ) $(KEEPER_OBJ) $(RELAY_OBJ) $(COMMAND_OBJ) $(ASAN_STACK_OBJ) $(ASAN_TEST_OBJ)

# The programs of the directories that have any C tests.
TEST_BIN := $(if $(wildcard tests/unit/*.c),$(BUILD)/asan/unit $(BUILD)/asan/unit_ip) \
	$(foreach suite,packet sim explore,$(if $(wildcard tests/$(suite)/*.c),$(BUILD)/asan/$(suite))) \
	$(BUILD)/asan/tcpshim

PACKETDRILL_SRC := $(wildcard tests/packetdrill/*.c)
PACKETDRILL_BIN := $(BUILD)/tests/packetdrill_tcpshim.so $(BUILD)/tests/packetdrill_smoke
TEST_BIN += $(PACKETDRILL_BIN) $(BUILD)/tests/flood
# lwIP as a peer, where liblwip-dev is installed.
LWIP_INCLUDE := $(wildcard /usr/include/lwip/lwip/api.h)
TEST_BIN += $(if $(LWIP_INCLUDE),$(BUILD)/tests/interop_lwip)
TSAN_OBJ := $(STACK_SRC:%.c=$(BUILD)/tsan/%.o) $(BUILD)/tsan/tests/tsan/engine.o
TEST_BIN += $(BUILD)/tsan/engine
INSTRUCTIONS_BIN := $(BUILD)/bench/instructions/engine $(BUILD)/bench/instructions/calls
TEST_BIN += $(INSTRUCTIONS_BIN) $(BENCH_BIN)

.PHONY: docs-programs docs-states docs-calls all tests fuzzers demo check sim bench bench-instructions bench-trace bench-syscalls bench-quick soak fuzz lint tidy cppcheck format clean install docs docs-man docs-conformance install-deps FORCE
all: $(BUILD)/libtcpshim.so $(BUILD)/tcpshim-keeper $(BUILD)/tcpshim-relay $(BUILD)/tcpshim
tests: $(TEST_BIN)
fuzzers: $(FUZZ_BIN)

# Objects depend on the compiler and its flags: another CC or CFLAGS in the same directory rebuilds.
FLAGS_NOW := $(CC) $(BASE) $(WARN) $(CFLAGS) $(SAN)
$(BUILD)/flags: FORCE
	@mkdir -p $(@D); echo '$(FLAGS_NOW)' | cmp -s - $@ || echo '$(FLAGS_NOW)' > $@

$(BUILD)/%.o: %.c $(BUILD)/flags
	@mkdir -p $(@D)
	$(CC) $(BASE) $(WARN) $(CFLAGS) -fPIC -fexceptions -MMD -MP -c $< -o $@

$(BUILD)/libstack.a: $(STACK_OBJ)
	@rm -f $@
	$(AR) rcs $@ $^

# -Bsymbolic-functions: a hook that calls another finds ours, whatever the program defines (Erlang: sigaction).
$(BUILD)/libtcpshim.so: $(SHIM_OBJ) $(BUILD)/libstack.a shim/exports.map Makefile
	$(CC) -shared $(CFLAGS) -Wl,--version-script=shim/exports.map -Wl,-z,now,-z,nodelete \
		-Wl,--no-undefined,-Bsymbolic-functions -o $@ $(SHIM_OBJ) $(BUILD)/libstack.a

# Parts of the shim that the keeper is made of, too. Static: it starts faster, and in any chroot.
KEEPER_SHIM := $(addprefix $(BUILD)/shim/,life/custody.o link/af_packet.o link/aside.o link/batch.o link/vnet.o \
	link/filter.o link/ports.o \
	link/segment.o link/impair.o link/impair_rules.o link/impair_engine.o link/impair_store.o \
	link/capture.o link/ingress_program.o link/interfaces.o link/netlink.o link/diag.o link/foreign.o link/group.o core/addr.o core/config.o core/rules.o core/fdtable.o watch/trace.o watch/trace_text.o \
	watch/trace_json.o watch/line.o watch/sink.o watch/filter.o watch/usdt.o)
$(BUILD)/tcpshim-keeper: $(KEEPER_OBJ) $(KEEPER_SHIM) $(BUILD)/libstack.a
	$(CC) -static $(CFLAGS) -o $@ $^

$(BUILD)/tcpshim-relay: $(RELAY_OBJ)
	$(CC) $(CFLAGS) -o $@ $^

# The command, with the parts of the shim that it shares: the variables and their syntax.
COMMAND_SHIM := $(addprefix $(BUILD)/shim/,core/addr.o core/config.o core/layout.o core/rules.o \
	link/impair_rules.o watch/filter.o watch/line.o watch/trace_text.o watch/trace_json.o)
$(BUILD)/tcpshim: $(COMMAND_OBJ) $(COMMAND_SHIM) $(BUILD)/libstack.a
	$(CC) $(CFLAGS) -o $@ $^ -ljansson -lpcap -lm

# The same under the sanitizers, for tests that give it broken files and arenas.
ASAN_COMMAND_OBJ := $(patsubst $(BUILD)/%,$(BUILD)/asan/%,$(COMMAND_OBJ) $(COMMAND_SHIM))
$(BUILD)/asan/tcpshim: $(ASAN_COMMAND_OBJ) $(ASAN_STACK_OBJ)
	$(CC) $(SAN) -o $@ $^ -ljansson -lpcap -lm

# Tests run the engine's sources under AddressSanitizer and UBSan.
$(BUILD)/asan/%.o: %.c $(BUILD)/flags
	@mkdir -p $(@D)
	$(CC) $(BASE) $(WARN) $(SAN) -MMD -MP -c $< -o $@

# The engine under ThreadSanitizer.
$(BUILD)/tsan/%.o: %.c $(BUILD)/flags
	@mkdir -p $(@D)
	$(CC) $(BASE) $(WARN) -fsanitize=thread -O1 -g -MMD -MP -c $< -o $@

$(BUILD)/tsan/engine: $(TSAN_OBJ)
	$(CC) -fsanitize=thread -o $@ $^ -lpthread

CHECK_LIBS := $(shell pkg-config --libs check 2>/dev/null || echo -lcheck -lsubunit -lm -lrt -lpthread)

$(BUILD)/asan/packet: $(filter $(BUILD)/asan/tests/packet/%,$(ASAN_TEST_OBJ)) $(ASAN_STACK_OBJ)
$(BUILD)/asan/sim: $(filter $(BUILD)/asan/tests/sim/%,$(ASAN_TEST_OBJ)) $(ASAN_STACK_OBJ)
$(BUILD)/asan/sim: $(BUILD)/asan/tests/packet/frame.o
$(BUILD)/asan/explore: $(filter $(BUILD)/asan/tests/explore/%,$(ASAN_TEST_OBJ)) $(ASAN_STACK_OBJ)
$(BUILD)/asan/packet $(BUILD)/asan/sim $(BUILD)/asan/explore:
	$(CC) $(SAN) -o $@ $^ -lm

# The shim in virtual time, behind packetdrill's interface. Its own parts come first, so that of the
# shim only what they do not replace is taken from the archive; of two definitions theirs counts.
PACKETDRILL_OBJ := $(patsubst %.c,$(BUILD)/%.o,$(filter-out tests/packetdrill/smoke.c,$(PACKETDRILL_SRC)))
$(BUILD)/libshim.a: $(SHIM_OBJ)
	@rm -f $@
	$(AR) rcs $@ $^

$(BUILD)/tests/packetdrill_tcpshim.so: $(PACKETDRILL_OBJ) $(BUILD)/libshim.a $(BUILD)/libstack.a tests/packetdrill/exports.map
	$(CC) -shared $(CFLAGS) -Wl,--version-script=tests/packetdrill/exports.map -Wl,-z,now,-z,nodelete \
		-Wl,--no-undefined,--allow-multiple-definition,-u,sendfile -o $@ $(PACKETDRILL_OBJ) $(BUILD)/libshim.a $(BUILD)/libstack.a

$(BUILD)/tests/packetdrill_smoke: $(BUILD)/tests/packetdrill/smoke.o
	$(CC) $(CFLAGS) -o $@ $<

$(BUILD)/tests/%: tests/flood/%.c
	@mkdir -p $(@D)
	$(CC) $(BASE) $(WARN) $(CFLAGS) -o $@ $<

$(BUILD)/tests/accecn_peer: tests/interop/accecn_peer.c
	@mkdir -p $(@D)
	$(CC) $(BASE) $(WARN) $(CFLAGS) -static -o $@.static $<
	$(CC) $(BASE) $(WARN) $(CFLAGS) -o $@ $<

$(BUILD)/tests/interop_lwip: tests/interop/lwip.c
	@mkdir -p $(@D)
	$(CC) $(BASE) $(WARN) $(CFLAGS) -isystem /usr/include/lwip -o $@ $< -llwip

# tests/unit makes two programs (see its main.c): the network layer is tested over a stub of TCP.
UNIT_IP_SUITES := $(shell sed -n '/define UNIT_IP_SUITES/,/[^\\]$$/s/.*X(\([a-z0-9_]*\)).*/\1/p' \
	tests/unit/suites.h 2>/dev/null)
UNIT_IP_ONLY   := $(wildcard tests/unit/stub_*.c tests/unit/ip_*.c $(UNIT_IP_SUITES:%=tests/unit/test_%.c))
UNIT_IP_OBJ    := $(patsubst tests/unit/%.c,$(BUILD)/asan/unit_ip.o/%.o,tests/unit/main.c $(UNIT_IP_ONLY))
UNIT_OBJ       := $(patsubst %.c,$(BUILD)/asan/%.o,$(filter-out $(UNIT_IP_ONLY),$(wildcard tests/unit/*.c)))

# Parts of the shim that make no system call are tested here too.
UNIT_SHIM := $(addprefix $(BUILD)/asan/shim/,link/filter.o link/ports.o link/segment.o \
	link/impair_rules.o link/impair_engine.o link/impair_store.o core/addr.o core/config.o core/rules.o \
	watch/filter.o watch/line.o watch/trace_text.o watch/trace_json.o watch/trace.o watch/sink.o \
	watch/usdt.o wait/spin.o link/aside.o link/ingress_program.o link/vnet.o)
$(BUILD)/asan/unit: $(UNIT_OBJ) $(UNIT_SHIM) $(ASAN_STACK_OBJ)
	$(CC) $(SAN) -o $@ $^ $(CHECK_LIBS)

$(BUILD)/asan/unit_ip: $(UNIT_IP_OBJ) $(filter-out $(BUILD)/asan/stack/tcp/%,$(ASAN_STACK_OBJ))
	$(CC) $(SAN) -o $@ $^ $(CHECK_LIBS)

$(BUILD)/asan/unit_ip.o/%.o: tests/unit/%.c $(BUILD)/flags
	@mkdir -p $(@D)
	$(CC) $(BASE) $(WARN) $(SAN) -DUNIT_IP -MMD -MP -c $< -o $@

$(BUILD)/fuzz/obj/%.o: %.c
	@mkdir -p $(@D)
	$(FUZZ_CC) $(BASE) $(WARN) $(SAN) -fsanitize=fuzzer-no-link -MMD -MP -c $< -o $@

# What the targets share: the engine, and of shim/ what makes no call into libc's sockets.
FUZZ_SHIM_SRC := $(addprefix shim/,core/addr.c core/config.c core/rules.c link/segment.c link/impair_rules.c \
	link/impair_engine.c link/impair_store.c watch/filter.c)
FUZZ_VIEW_SRC := $(wildcard shim/command/view/*.c) shim/command/term.c
FUZZ_LIB_OBJ := $(FUZZ_STACK_OBJ) $(FUZZ_SHIM_SRC:%.c=$(BUILD)/fuzz/obj/%.o) \
	$(BUILD)/fuzz/obj/tests/fuzz/world.o $(BUILD)/fuzz/obj/tests/packet/frame.o
FUZZ_VIEW_OBJ := $(FUZZ_VIEW_SRC:%.c=$(BUILD)/fuzz/obj/%.o)
$(BUILD)/fuzz/libfuzz.a: $(FUZZ_LIB_OBJ)
	@rm -f $@
	$(AR) rcs $@ $^

$(BUILD)/fuzz/fuzz_trace: $(FUZZ_VIEW_OBJ)
$(BUILD)/fuzz/%: $(BUILD)/fuzz/obj/tests/fuzz/%.o $(BUILD)/fuzz/libfuzz.a
	$(FUZZ_CC) $(SAN) -fsanitize=fuzzer -o $@ $< $(filter %.o,$(wordlist 3,99,$^)) $(BUILD)/fuzz/libfuzz.a \
		-Wl,--as-needed -ljansson -lpcap -lm

demo:
	@tests/deps.sh build demo
	@$(MAKE) --no-print-directory -s all
	@tests/as-root.sh $(PYTHON) tests/lab/demo.py --library $(BUILD)/libtcpshim.so

check:
	@tests/deps.sh build check
	@$(PYTHON) tests/run_all.py --build $(BUILD)

.PHONY: check-python check-apps check-accecn docs-applications
check-python: all
	@tests/deps.sh build check
	@tests/as-root.sh $(PYTHON) tests/python/run.py --build $(BUILD)

check-apps: all
	@tests/deps.sh build apps
	@tests/as-root.sh $(PYTHON) tests/apps/run.py --build $(BUILD) --long

check-accecn: all $(BUILD)/tests/accecn_peer
	@tests/deps.sh build accecn
	@tests/as-root.sh $(PYTHON) tests/interop/accecn_vm.py --build $(BUILD)

docs-applications: all
	@tests/deps.sh build apps
	@tests/as-root.sh $(PYTHON) tests/apps/run.py --build $(BUILD) --table docs/applications.md -j 1

# Lines of stack/ that the engine's tests reach, built apart.
COVERAGE := $(BUILD)/coverage
COVERED  := $(addprefix $(COVERAGE)/asan/,unit unit_ip packet sim explore)
.PHONY: coverage
coverage:
	@$(MAKE) --no-print-directory -s BUILD=$(COVERAGE) SAN='--coverage -fprofile-update=atomic -O0 -g' $(COVERED)
	@$(PYTHON) tests/coverage.py --build $(COVERAGE)

sim: $(BUILD)/asan/sim
	$(BUILD)/asan/sim --seeds $(SEEDS) --first $(FIRST)

$(BUILD)/bench/%: bench/%.c bench/net.h bench/round.h bench/frames.h bench/ingress.h shim/link/bpf.h
	@mkdir -p $(@D)
	$(CC) $(BASE) $(WARN) $(CFLAGS) -o $@ $<

$(BUILD)/bench/%.so: bench/%.c
	@mkdir -p $(@D)
	$(CC) $(BASE) $(WARN) $(CFLAGS) -fPIC -shared -o $@ $<

$(BUILD)/bench/path: $(BUILD)/bench/path.o $(BUILD)/shim/command/lab_link.o $(BUILD)/shim/link/segment.o $(BUILD)/libstack.a
	$(CC) $(CFLAGS) -o $@ $^

# Instructions of the hot paths: the release build's engine with the sinks of traces.
INSTRUCTIONS_SHIM := $(addprefix shim/,core/addr.o core/config.o core/rules.o core/fdtable.o \
	link/impair_rules.o watch/trace.o watch/trace_text.o watch/trace_json.o watch/line.o \
	watch/sink.o watch/filter.o watch/usdt.o)
$(BUILD)/bench/instructions/engine: $(BUILD)/bench/instructions/engine.o \
		$(addprefix $(BUILD)/,$(INSTRUCTIONS_SHIM)) $(BUILD)/libstack.a
	$(CC) $(CFLAGS) -o $@ $^

$(BUILD)/bench/instructions/calls: $(BUILD)/bench/instructions/calls.o
	$(CC) $(CFLAGS) -o $@ $^

bench-syscalls: all
	@tests/deps.sh build bench
	@tests/as-root.sh $(PYTHON) bench/syscalls.py --build $(BUILD)

# The same without traces, and without the ring of last events besides, for bench-trace.
INSTRUCTIONS_NONE := $(foreach kind,trace_none ring_none,$(BUILD)/bench/instructions/engine_$(kind))
TRACE_NONE_OBJ := $(STACK_SRC:%.c=$(BUILD)/trace_none/%.o)
RING_NONE_OBJ  := $(STACK_SRC:%.c=$(BUILD)/ring_none/%.o)
$(BUILD)/trace_none/%.o: %.c $(BUILD)/flags
	@mkdir -p $(@D)
	$(CC) $(BASE) $(WARN) $(CFLAGS) -DTRACE_NONE -fPIC -fexceptions -MMD -MP -c $< -o $@
$(BUILD)/ring_none/%.o: %.c $(BUILD)/flags
	@mkdir -p $(@D)
	$(CC) $(BASE) $(WARN) $(CFLAGS) -DTRACE_NONE -DRING_NONE -fPIC -fexceptions -MMD -MP -c $< -o $@
$(BUILD)/bench/instructions/engine_trace_none: $(TRACE_NONE_OBJ)
$(BUILD)/bench/instructions/engine_ring_none: $(RING_NONE_OBJ)
$(INSTRUCTIONS_NONE): $(BUILD)/bench/instructions/engine.o $(addprefix $(BUILD)/,$(INSTRUCTIONS_SHIM))
	$(CC) $(CFLAGS) -o $@ $^

bench-trace: all $(INSTRUCTIONS_BIN) $(INSTRUCTIONS_NONE)
	@tests/deps.sh build bench
	@tests/as-root.sh $(PYTHON) bench/instructions/run.py --build $(BUILD) --traces

bench-instructions: all $(INSTRUCTIONS_BIN)
	@tests/deps.sh build bench
	@tests/as-root.sh $(PYTHON) bench/instructions/run.py --build $(BUILD)

# Measurements, not tests: nothing of them decides about `make check`.
BENCH := tests/as-root.sh $(PYTHON) bench/run.py --build $(BUILD)
bench: all $(BENCH_BIN)
	@tests/deps.sh build bench
	@$(BENCH) --write

bench-quick: all $(BENCH_BIN)
	@tests/deps.sh build bench
	@$(BENCH) --rounds 3 --pairs K-K U-K K-U U-U --minutes 2.8 \
		-k bulk rtt-1 rtt-64 rtt-1024 connect http redis redis-16

.PHONY: bench-docs
bench-docs:
	@tests/deps.sh bench
	@$(PYTHON) bench/run.py --from $(BUILD)/bench.json

soak: all $(BUILD)/asan/sim $(BUILD)/tests/flood
	$(BUILD)/asan/sim --seeds 1000000 --first $(FIRST)
	tests/as-root.sh $(PYTHON) tests/apps/run.py --build $(BUILD) --soak
	tests/as-root.sh $(PYTHON) tests/flood/run.py --build $(BUILD) --seconds 60
	tests/as-root.sh $(PYTHON) tests/interop/run.py --build $(BUILD) --all
	tests/as-root.sh $(PYTHON) tests/kill/run.py --build $(BUILD) --kills 5000 --crowd 6000 --instructions 2000 --stores 3000 --rounds 10 --seed $(FIRST)
	tests/as-root.sh $(PYTHON) tests/kill/run.py --build $(BUILD) -k mass --mass 100000

# Seeds come from tests/fuzz/corpus/NAME; what a run learns stays in build/.
fuzz: fuzzers
	@$(PYTHON) tests/fuzz/run.py --build $(BUILD) --seconds $(FUZZ_TIME)

lint: tidy cppcheck
tidy:
	@printf '%s\n' $(strip $(STACK_SRC) $(SHIM_SRC) $(KEEPER_SRC) $(RELAY_SRC) $(COMMAND_SRC) $(TEST_SRC) $(PACKETDRILL_SRC) $(FUZZ_SRC) $(FLOOD_SRC) $(BENCH_SRC)) | \
		xargs -P $$(nproc) -n 4 sh -c \
		'clang-tidy --quiet --warnings-as-errors="*" "$$@" -- $(BASE) -Wall -Wextra 2>&1 | \
		grep -v "warnings\? .*generated\.$$" | { ! grep .; }' tidy

cppcheck:
	@cppcheck --quiet --error-exitcode=1 --std=c11 --language=c --inline-suppr -j $$(nproc) -I. \
		--enable=warning,performance,portability --suppressions-list=tests/cppcheck.txt stack shim tests bench

format:
	clang-format -i $(STACK_SRC) $(SHIM_SRC) $(KEEPER_SRC) $(RELAY_SRC) $(COMMAND_SRC) $(TEST_SRC) $(PACKETDRILL_SRC) $(FUZZ_SRC) $(FLOOD_SRC) $(INTEROP_SRC) $(BENCH_SRC) $(HEADERS)

PREFIX ?= /usr/local
INSTALL_TO := $(DESTDIR)$(PREFIX)
install: all
	install -d $(INSTALL_TO)/bin $(INSTALL_TO)/lib/tcpshim $(INSTALL_TO)/share/man/man1 \
		$(INSTALL_TO)/share/bash-completion/completions $(INSTALL_TO)/share/zsh/site-functions
	install -m 644 $(BUILD)/libtcpshim.so $(INSTALL_TO)/lib/tcpshim/
	install -m 755 $(BUILD)/tcpshim-keeper $(BUILD)/tcpshim-relay $(INSTALL_TO)/lib/tcpshim/
	install -m 755 $(BUILD)/tcpshim $(INSTALL_TO)/bin/
	install -m 644 docs/tcpshim.1 $(INSTALL_TO)/share/man/man1/
	$(BUILD)/tcpshim --generate bash > $(INSTALL_TO)/share/bash-completion/completions/tcpshim
	$(BUILD)/tcpshim --generate zsh > $(INSTALL_TO)/share/zsh/site-functions/_tcpshim

# Each tests/docs/*.sh writes documents; tests/docs/check.py compares them with what lies in docs/.
docs: docs-man docs-conformance docs-programs docs-states docs-calls
	@for script in tests/docs/*.sh; do $$script $(abspath $(BUILD)) docs || exit 1; done
docs-programs: $(BUILD)/docs/trace_doc
$(BUILD)/docs/trace_doc: tests/docs/trace_doc.c $(BUILD)/libstack.a
	@mkdir -p $(@D)
	$(CC) $(BASE) $(WARN) $(CFLAGS) -o $@ $^
docs-conformance: $(TEST_BIN)
	$(PYTHON) tests/conformance/generate.py --build $(BUILD)
docs-states: all
	@tests/deps.sh build check
	@tests/as-root.sh $(PYTHON) tests/docs/states.py --build $(BUILD) --write
docs-calls: all
	@tests/deps.sh build check
	@tests/as-root.sh $(PYTHON) tests/docs/calls.py --build $(BUILD) --write
docs-man: $(BUILD)/tcpshim
	$(BUILD)/tcpshim --generate man > docs/tcpshim.1

install-deps:
	@tests/deps.sh build demo check apps accecn bench lint

clean:
	rm -rf $(BUILD)

-include $(ALL_OBJ:.o=.d) $(BUILD)/bench/path.d $(INSTRUCTIONS_BIN:%=%.d) $(TRACE_NONE_OBJ:.o=.d) $(RING_NONE_OBJ:.o=.d) $(TSAN_OBJ:.o=.d) $(ASAN_COMMAND_OBJ:.o=.d) $(PACKETDRILL_SRC:%.c=$(BUILD)/%.d) $(UNIT_SHIM:.o=.d) $(UNIT_IP_OBJ:.o=.d) $(FUZZ_LIB_OBJ:.o=.d) $(FUZZ_VIEW_OBJ:.o=.d) $(FUZZ_SRC:%.c=$(BUILD)/fuzz/obj/%.d)
