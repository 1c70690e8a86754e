// Runs the threads of a block as fibers in random order and checks every memory access.
//
// Time is counted in epochs: the block's number of barriers so far, and in each warp the number of
// warp-wide operations. Two accesses to one place by different threads, at least one of them a
// write, are a race unless a barrier (or, within a warp, a warp-wide operation) lies between, or
// both are atomic. A race is reported whether or not this run's order of threads shows it.

#include <link.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <sys/mman.h>
#include <ucontext.h>
#include <unistd.h>

#include <algorithm>
#include <numeric>
#include <vector>

#include "cuda_on_cpu.h"

cuda_on_cpu::Dim threadIdx, blockIdx, blockDim, gridDim;

namespace cuda_on_cpu {

char* dynamic_shared;

namespace {

constexpr int WARP = 32, MAX_THREADS = 1024;
constexpr size_t STACK = 1 << 17, MAX_SHARED = 48 << 10;
const size_t PAGE = sysconf(_SC_PAGESIZE);
// As aligned as what a GPU's allocator hands out.
constexpr size_t ALIGNED = 256;

enum Policy { FAIR, SUBSET, STARVE };
enum State { READY, AT_BARRIER, IN_WARP, DONE };

struct Fiber {
  ucontext_t start;
  jmp_buf resume;
  bool begun = false;
  State state;
  const char* site;  // where it waits
  bool vote;
  Collective what;
  unsigned mask;
  int operand, width;
  uint64_t bits;
};

// The latest accesses of one kind to one place, by lanes of one warp in one epoch.
struct Access {
  uint32_t epoch, warp_epoch, lanes, code;
  uint16_t warp;
  bool atomic;
};

struct Cell {
  Access write;
  // Readers of two warps: whichever warp writes next, one of them is another.
  Access read[2];
};

struct Region {
  char* host;
  size_t size, item;
  int constant, argument;
  uint64_t loaded, stored;  // bytes
  char* here;
};

struct Argument {
  int region;  // -1: `value` holds the scalar
  size_t offset;
  char value[64];
};

struct Launch {
  Dim grid, block;
  size_t shared;
  int policy;
  uint64_t seed, most_accesses;
  Region* regions;
  int n_regions;
  Argument* arguments;
  int n_arguments;
};

struct Report {
  char message[1024];
  uint64_t code[2];  // offsets in this library of the access and of the one it clashes with
};

struct Range {
  char *low, *high;
  size_t item;
  Region* region;  // null: shared memory
  std::vector<Cell> cells;
};

const Kernel* kernel;
void** arguments;
Report* report;
sigjmp_buf failure;
jmp_buf scheduler;

Fiber fibers[MAX_THREADS];
char* stacks;
int threads, alive, waiting, current = -1;
Policy policy;
uint64_t state_of_chance;

uint32_t epoch = 1, block_epoch, launch_epoch, warp_epoch[MAX_THREADS / WARP];
uint64_t accesses_left;
uint32_t code_of_access;
std::vector<Range> ranges;  // arguments, dynamic and static shared memory
size_t n_ranges, latest;
char *arena, *arena_end, *shared_map;
char* library;

uint32_t chance(uint32_t n) {
  state_of_chance = state_of_chance * 6364136223846793005u + 1442695040888963407u;
  return uint32_t((state_of_chance >> 33) % n);
}

// `code` is the place of the access that is wrong; 0 if no access is.
[[noreturn]] void fail(uint32_t code, const char* format, ...) {
  report->code[0] = code;
  int used = 0;
  if (current >= 0) {
    used = snprintf(report->message, sizeof report->message,
                    "thread (%u, %u, %u) of block (%u, %u, %u) ", threadIdx.x, threadIdx.y,
                    threadIdx.z, blockIdx.x, blockIdx.y, blockIdx.z);
  }
  va_list rest;
  va_start(rest, format);
  vsnprintf(report->message + used, sizeof report->message - used, format, rest);
  va_end(rest);
  siglongjmp(failure, 1);
}

// ---- memory

bool unordered(const Access& past, const Range& range, uint32_t lane) {
  const uint32_t oldest = range.region ? launch_epoch : block_epoch;
  if (past.epoch < oldest) return false;
  if (past.epoch < block_epoch) return true;  // by another block: nothing orders blocks
  if (past.epoch != epoch) return false;
  const int warp = current / WARP;
  if (past.warp != warp) return true;
  return past.warp_epoch == warp_epoch[warp] && (past.lanes & ~lane);
}

void note(Access& past, uint32_t lane, bool atomic) {
  const uint16_t warp = current / WARP;
  const bool joins = past.epoch == epoch && past.warp == warp && past.atomic == atomic &&
                     past.warp_epoch == warp_epoch[warp];
  past = {epoch, warp_epoch[warp], joins ? past.lanes | lane : lane, code_of_access, warp, atomic};
}

[[noreturn]] void fail_race(const char* now, const char* before, const Range& range, char* address,
                            const Access& past) {
  report->code[1] = past.code;
  const char* by = past.epoch < block_epoch      ? "another block"
                   : past.warp == current / WARP ? "its warp"
                                                 : "another warp";
  char place[64] = "shared memory";
  if (range.region) {
    snprintf(place, sizeof place, "argument %d at byte %td", range.region->argument,
             address - range.low);
  }
  fail(code_of_access, "%s %s, which %s has %s, with no barrier between", now, place, by, before);
}

void check_cell(Cell& cell, Range& range, char* address, bool write, bool atomic) {
  const uint32_t lane = 1u << current % WARP;
  if (!range.region && cell.write.epoch < block_epoch && (atomic || !write)) {
    fail(code_of_access, "reads shared memory that its block has not written");
  }
  const char* now = atomic ? "updates" : write ? "writes" : "reads";
  if (!(atomic && cell.write.atomic) && unordered(cell.write, range, lane)) {
    fail_race(now, cell.write.atomic ? "updated" : "written", range, address, cell.write);
  }
  if (write) {
    for (const Access& read : cell.read) {
      if (unordered(read, range, lane)) fail_race(now, "read", range, address, read);
    }
    note(cell.write, lane, atomic);
  } else {
    const int warp = current / WARP;
    const bool second = cell.read[1].epoch == epoch && cell.read[1].warp == warp;
    if (!second && cell.read[0].epoch == epoch && cell.read[0].warp != warp) {
      cell.read[1] = cell.read[0];
    }
    note(cell.read[second], lane, false);
  }
}

[[noreturn]] void fail_bounds(char* address, size_t size, bool write) {
  const char* verb = write ? "writes" : "reads";
  if (address < arena || address >= arena_end) {
    fail(code_of_access, "%s %zu bytes outside the block's dynamic shared memory", verb, size);
  }
  int nearest = 0;
  size_t least = SIZE_MAX;
  for (size_t k = 0; k < n_ranges && ranges[k].region; ++k) {
    const size_t apart =
        address < ranges[k].low ? ranges[k].low - address : address - ranges[k].high;
    if (apart < least) {
      least = apart;
      nearest = int(k);
    }
  }
  const Range& range = ranges[nearest];
  fail(code_of_access, "%s %zu bytes at byte %td of argument %d, which has %td", verb, size,
       address - range.low, range.region->argument, range.high - range.low);
}

void access(const void* where, size_t size, bool write, bool atomic, void* caller) {
  char* address = (char*)where;
  if (!accesses_left--) fail(code_of_access, "finds no end");
  if (latest >= n_ranges || address < ranges[latest].low || address >= ranges[latest].high) {
    latest = 0;
    while (latest < n_ranges && (address < ranges[latest].low || address >= ranges[latest].high)) {
      ++latest;
    }
  }
  code_of_access = uint32_t((char*)caller - library);
  if (latest == n_ranges) {
    const bool ours = (address >= arena && address < arena_end) ||
                      (address >= shared_map && address < shared_map + 2 * PAGE + MAX_SHARED);
    if (ours) fail_bounds(address, size, write);
    return;  // the thread's own stack, or a constant
  }
  Range& range = ranges[latest];
  if (address + size > range.high) fail_bounds(address, size, write);
  if (range.region) {
    if (!write || atomic) range.region->loaded += size;
    if (write) range.region->stored += size;
    if (range.region->constant) {
      if (write) fail(code_of_access, "writes to const argument %d", range.region->argument);
      return;
    }
  }
  const size_t first = (address - range.low) / range.item;
  const size_t last = (address + size - 1 - range.low) / range.item;
  // Shared memory is cut in bytes, for nobody says of what type it is; words need not be.
  const size_t step = std::max<size_t>(std::min<size_t>(size, 4) / range.item, 1);
  for (size_t k = first; k <= last; k += step) {
    check_cell(range.cells[k], range, address, write, atomic);
  }
}

struct Memory {
  char* start;
  size_t size;
};

// Find where this library lies, and its thread-local memory.
int find_library(dl_phdr_info* info, size_t, void* thread_local_memory) {
  const char* inside = (const char*)&find_library;
  size_t tls = 0;
  bool mine = false;
  for (int k = 0; k < info->dlpi_phnum; ++k) {
    const auto& part = info->dlpi_phdr[k];
    const char* start = (const char*)info->dlpi_addr + part.p_vaddr;
    mine |= part.p_type == PT_LOAD && inside >= start && inside < start + part.p_memsz;
    if (part.p_type == PT_TLS) tls = part.p_memsz;
  }
  if (!mine) return 0;
  library = (char*)info->dlpi_addr;
  *(Memory*)thread_local_memory = {(char*)info->dlpi_tls_data, tls};
  return 1;
}

void add_range(char* low, size_t size, size_t item, Region* region) {
  // Cells stay from launch to launch: their epochs tell that they are old.
  if (ranges.size() == n_ranges) ranges.emplace_back();
  Range& range = ranges[n_ranges++];
  range.low = low;
  range.high = low + size;
  range.item = item;
  range.region = region;
  if (!region || !region->constant) {
    range.cells.resize(std::max(range.cells.size(), size / item + 1));
  }
}

size_t up(size_t size, size_t unit) { return (size + unit - 1) / unit * unit; }

// Copy the arguments between pages that must not be touched, and lay out shared memory.
void map_memory(const Launch& launch) {
  static thread_local volatile char anchor;  // brings the library's thread-local memory into being
  anchor = 1;
  size_t total = PAGE;
  for (int k = 0; k < launch.n_regions; ++k) total += up(launch.regions[k].size, PAGE) + PAGE;
  arena = (char*)mmap(nullptr, total, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  if (arena == MAP_FAILED) arena = nullptr, fail(0, "no memory for the arguments");
  arena_end = arena + total;
  n_ranges = 0;
  char* next = arena + PAGE;
  for (int k = 0; k < launch.n_regions; ++k) {
    Region& region = launch.regions[k];
    const size_t size = up(region.size, PAGE);
    mprotect(next, size, PROT_READ | PROT_WRITE);
    // As close to the forbidden page as alignment allows; the accesses' own check does the rest.
    region.here = next + (size - region.size) / ALIGNED * ALIGNED;
    memcpy(region.here, region.host, region.size);
    add_range(region.here, region.size, region.item, &region);
    next += size + PAGE;
  }
  if (!shared_map) {
    shared_map =
        (char*)mmap(nullptr, 2 * PAGE + MAX_SHARED, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    mprotect(shared_map + PAGE, MAX_SHARED, PROT_READ | PROT_WRITE);
  }
  dynamic_shared = shared_map + PAGE + (MAX_SHARED - launch.shared) / ALIGNED * ALIGNED;
  add_range(dynamic_shared, launch.shared, 1, nullptr);
  Memory static_shared;
  dl_iterate_phdr(find_library, &static_shared);
  add_range(static_shared.start, static_shared.size, 1, nullptr);
}

void unmap_memory() {
  if (arena) munmap(arena, arena_end - arena);
  arena = arena_end = nullptr;
  n_ranges = latest = 0;
}

// ---- threads

void yield() {
  if (!_setjmp(fibers[current].resume)) _longjmp(scheduler, 1);
}

void fiber_main() {
  for (;;) {
    kernel->call(arguments);
    if (waiting) fail(0, "returns while others wait for it at a barrier");
    fibers[current].state = DONE;
    --alive;
    yield();
  }
}

void run(int thread) {
  Fiber& fiber = fibers[thread];
  current = thread;
  threadIdx = {thread % blockDim.x, thread / blockDim.x % blockDim.y,
               thread / blockDim.x / blockDim.y};
  if (!_setjmp(scheduler)) {
    if (fiber.begun) _longjmp(fiber.resume, 1);
    fiber.begun = true;
    setcontext(&fiber.start);
  }
  current = -1;
}

[[noreturn]] void fail_deadlock() {
  int used = snprintf(report->message, sizeof report->message,
                      "deadlock in block (%u, %u, %u):", blockIdx.x, blockIdx.y, blockIdx.z);
  const char* known[4] = {};
  for (int t = 0, sites = 0; t < threads && sites < 4; ++t) {
    const char* site = fibers[t].site;
    const auto same = [=](const char* s) { return s && !strcmp(s, site); };
    if (fibers[t].state == DONE || std::any_of(known, known + sites, same)) continue;
    known[sites++] = site;
    const int count = int(std::count_if(fibers, fibers + threads, [=](const Fiber& f) {
      return f.state != DONE && !strcmp(f.site, site);
    }));
    used += snprintf(report->message + used, sizeof report->message - used,
                     " thread %d and %d more wait for %s at %s;", t, count - 1,
                     fibers[t].state == AT_BARRIER ? "the block" : "their warp", site);
  }
  siglongjmp(failure, 1);
}

// The threads that run next, in their order.
const std::vector<int>& next_turn(int starved) {
  static std::vector<int> turn;
  turn.clear();
  uint32_t awake = ~0u;
  if (policy == SUBSET) awake = chance(1u << 31) << 1 | chance(2);
  if (policy == STARVE) awake = ~(1u << starved);
  for (int asleep = 0; asleep < 2 && turn.empty(); ++asleep) {
    for (int t = 0; t < threads; ++t) {
      const bool wakes = awake >> t / WARP & 1;
      if (fibers[t].state == READY && wakes != bool(asleep)) turn.push_back(t);
    }
  }
  if (turn.empty()) fail_deadlock();
  for (size_t k = turn.size(); k > 1; --k) std::swap(turn[k - 1], turn[chance(uint32_t(k))]);
  return turn;
}

void run_block(const Launch& launch, unsigned index) {
  blockIdx = {index % gridDim.x, index / gridDim.x % gridDim.y, index / gridDim.x / gridDim.y};
  block_epoch = ++epoch;
  alive = threads;
  waiting = 0;
  for (int t = 0; t < threads; ++t) fibers[t].state = READY;
  memset(warp_epoch, 0, sizeof warp_epoch);
  for (size_t k = launch.n_regions; k < n_ranges; ++k) {
    memset(ranges[k].low, 0xA5, ranges[k].high - ranges[k].low);
  }
  const int starved = int(chance((threads + WARP - 1) / WARP));
  while (alive) {
    for (int t : next_turn(starved)) run(t);
  }
}

void prepare_fibers() {
  if (!stacks) {
    stacks = (char*)mmap(nullptr, MAX_THREADS * STACK, PROT_READ | PROT_WRITE,
                         MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (stacks == MAP_FAILED) stacks = nullptr, fail(0, "no memory for the stacks");
    for (int t = 0; t < MAX_THREADS; ++t) mprotect(stacks + t * STACK, PAGE, PROT_NONE);
  }
  for (int t = 0; t < threads; ++t) {
    if (fibers[t].begun) continue;
    getcontext(&fibers[t].start);
    fibers[t].start.uc_stack.ss_sp = stacks + t * STACK;
    fibers[t].start.uc_stack.ss_size = STACK;
    makecontext(&fibers[t].start, fiber_main, 0);
  }
}

void on_fault(int, siginfo_t* info, void*) {
  char* address = (char*)info->si_addr;
  if (address >= stacks && address < stacks + MAX_THREADS * STACK)
    fail(code_of_access, "overflows its stack");
  fail(code_of_access, "touches address %p, far outside its arguments", (void*)address);
}

// Turns a memory fault of a kernel into a message while it lives.
class FaultHandler {
 public:
  FaultHandler() {
    stack_t stack = {};
    stack.ss_sp = memory_;
    stack.ss_size = sizeof memory_;
    sigaltstack(&stack, &old_stack_);
    struct sigaction action = {};
    action.sa_sigaction = on_fault;
    action.sa_flags = SA_SIGINFO | SA_ONSTACK;
    sigaction(SIGSEGV, &action, &old_segv_);
    sigaction(SIGBUS, &action, &old_bus_);
  }
  ~FaultHandler() {
    sigaction(SIGBUS, &old_bus_, nullptr);
    sigaction(SIGSEGV, &old_segv_, nullptr);
    sigaltstack(&old_stack_, nullptr);
  }

 private:
  char memory_[1 << 16];
  stack_t old_stack_;
  struct sigaction old_segv_, old_bus_;
};

void run_grid(const Launch& launch) {
  blockDim = launch.block;
  gridDim = launch.grid;
  threads = int(blockDim.x * blockDim.y * blockDim.z);
  policy = Policy(launch.policy);
  state_of_chance = launch.seed;
  launch_epoch = epoch + 1;
  accesses_left = launch.most_accesses;
  map_memory(launch);
  prepare_fibers();
  std::vector<void*> values;
  for (int k = 0; k < launch.n_arguments; ++k) {
    Argument& argument = launch.arguments[k];
    if (argument.region >= 0) {
      char* place = launch.regions[argument.region].here + argument.offset;
      memcpy(argument.value, &place, sizeof place);
    }
    values.push_back(argument.value);
  }
  arguments = values.data();
  std::vector<unsigned> order(gridDim.x * gridDim.y * gridDim.z);
  std::iota(order.begin(), order.end(), 0);
  for (size_t k = order.size(); k > 1; --k) std::swap(order[k - 1], order[chance(uint32_t(k))]);
  for (unsigned index : order) run_block(launch, index);
}

}  // namespace

// ---- what kernels call

int barrier(const char* site, bool vote) {
  static int votes;
  Fiber& me = fibers[current];
  if (alive < threads) fail(0, "waits at %s for threads that have returned", site);
  me.state = AT_BARRIER;
  me.site = site;
  me.vote = vote;
  if (++waiting == threads) {
    votes = 0;
    for (int t = 0; t < threads; ++t) {
      if (strcmp(fibers[t].site, site)) {
        fail(0, "waits for the block at %s, but thread %d does at %s", site, t, fibers[t].site);
      }
      votes += fibers[t].vote;
      fibers[t].state = READY;
    }
    waiting = 0;
    ++epoch;
  }
  yield();
  return votes;
}

static int source_lane(const Fiber& fiber, int lane) {
  const int first = lane & ~(fiber.width - 1), end = first + fiber.width;
  const int by = fiber.operand;
  switch (fiber.what) {
    case SHUFFLE:
      return first + (by & (fiber.width - 1));
    case SHUFFLE_UP:
      return lane - by < first ? lane : lane - by;
    case SHUFFLE_DOWN:
      return lane + by >= end ? lane : lane + by;
    case SHUFFLE_XOR:
      return (lane ^ by) >= end ? lane : lane ^ by;
    default:
      return lane;
  }
}

uint64_t collective(const char* site, Collective what, unsigned mask, uint64_t bits, int operand,
                    int width) {
  const int base = current / WARP * WARP;
  Fiber* warp = fibers + base;
  Fiber& me = fibers[current];
  if (!(mask >> (current - base) & 1)) fail(0, "is not in its own mask %08x at %s", mask, site);
  if (width <= 0 || width > WARP || width & (width - 1))
    fail(0, "gives width %d at %s", width, site);
  me.state = IN_WARP;
  me.site = site;
  me.what = what, me.mask = mask, me.bits = bits, me.operand = operand, me.width = width;
  bool complete = true;
  for (int lane = 0; lane < WARP; ++lane) {
    if (!(mask >> lane & 1)) continue;
    const bool exists = base + lane < threads;
    if (!exists || warp[lane].state == DONE) {
      fail(0, "names lane %d in its mask at %s, which %s", lane, site,
           exists ? "has returned" : "does not exist");
    }
    if (warp[lane].state != IN_WARP) {
      complete = false;
    } else if (warp[lane].mask != mask || strcmp(warp[lane].site, site)) {
      fail(0, "diverges: lane %d, which its mask at %s names, waits at %s", lane, site,
           warp[lane].site);
    }
  }
  if (complete) {
    uint64_t answers[WARP] = {}, ballot = 0;
    for (int lane = 0; lane < WARP; ++lane) {
      if (!(mask >> lane & 1)) continue;
      const int source = source_lane(warp[lane], lane);
      if (source < 0 || !(mask >> source & 1)) {
        fail(0, "takes part in a shuffle at %s that reads lane %d, which mask %08x does not name",
             site, source, mask);
      }
      answers[lane] = warp[source].bits;
      ballot |= (warp[lane].bits & 1) << lane;
    }
    for (int lane = 0; lane < WARP; ++lane) {
      if (!(mask >> lane & 1)) continue;
      warp[lane].bits = what == BALLOT ? ballot : answers[lane];
      warp[lane].state = READY;
    }
    ++warp_epoch[base / WARP];
  }
  yield();
  return me.bits;
}

void atomic_access(const void* address, size_t size, void* caller) {
  if (policy != FAIR && !chance(4)) yield();
  access(address, size, true, true, caller);
}

extern "C" int launch(const Kernel* called, const Launch* spec, Report* result) {
  kernel = called;
  report = result;
  const FaultHandler handler;
  const bool failed = sigsetjmp(failure, 1);
  if (!failed) {
    run_grid(*spec);
    for (int k = 0; k < spec->n_regions; ++k) {
      const Region& region = spec->regions[k];
      if (!region.constant) memcpy(region.host, region.here, region.size);
    }
  } else {
    for (Fiber& fiber : fibers) fiber.begun = false;
    current = -1;
  }
  unmap_memory();
  return failed;
}

}  // namespace cuda_on_cpu

// ---- what -fsanitize=thread calls before each access

#define CALLER __builtin_return_address(0)
#define HOOKS(name, size)                                 \
  extern "C" void __tsan_read##name(void* p) {            \
    cuda_on_cpu::access(p, size, false, false, CALLER);   \
  }                                                       \
  extern "C" void __tsan_write##name(void* p) {           \
    cuda_on_cpu::access(p, size, true, false, CALLER);    \
  }                                                       \
  extern "C" void __tsan_unaligned_read##name(void* p) {  \
    cuda_on_cpu::access(p, size, false, false, CALLER);   \
  }                                                       \
  extern "C" void __tsan_unaligned_write##name(void* p) { \
    cuda_on_cpu::access(p, size, true, false, CALLER);    \
  }
HOOKS(1, 1)
HOOKS(2, 2)
HOOKS(4, 4)
HOOKS(8, 8)
HOOKS(16, 16)
extern "C" void __tsan_read_range(void* p, size_t size) {
  cuda_on_cpu::access(p, size, false, false, CALLER);
}
extern "C" void __tsan_write_range(void* p, size_t size) {
  cuda_on_cpu::access(p, size, true, false, CALLER);
}
extern "C" void __tsan_init() {}
extern "C" void __tsan_func_entry(void*) {}
extern "C" void __tsan_func_exit() {}

// ---- what -fsanitize=undefined calls when an operation has no defined result

struct SourceLocation {
  const char* file;
  uint32_t line, column;
};

#define UNDEFINED(name, words)                                      \
  extern "C" void __ubsan_handle_##name(const SourceLocation* at) { \
    cuda_on_cpu::fail(0, words " at %s:%u", at->file, at->line);    \
  }
UNDEFINED(type_mismatch_v1_abort, "uses a null or misaligned pointer, or one of the wrong type,")
UNDEFINED(pointer_overflow_abort, "overflows a pointer")
UNDEFINED(out_of_bounds_abort, "indexes an array out of its bounds")
UNDEFINED(shift_out_of_bounds_abort, "shifts by a negative or too large number")
UNDEFINED(add_overflow_abort, "overflows a signed addition")
UNDEFINED(sub_overflow_abort, "overflows a signed subtraction")
UNDEFINED(mul_overflow_abort, "overflows a signed multiplication")
UNDEFINED(negate_overflow_abort, "overflows a negation")
UNDEFINED(divrem_overflow_abort, "divides by zero, or overflows a division")
UNDEFINED(load_invalid_value_abort, "loads a bool that is neither true nor false")
UNDEFINED(invalid_builtin_abort, "counts the leading or trailing zeros of zero")
UNDEFINED(nonnull_arg_abort, "passes a null pointer")
UNDEFINED(builtin_unreachable, "reaches the unreachable")
UNDEFINED(missing_return, "leaves a function without its value")
