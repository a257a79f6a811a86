// GCC's OpenMP synchronises its threads in ways that ThreadSanitizer does not see: it would call
// every parallel region a race with what comes before and after. This GOMP_parallel stands before
// the library's and tells it that a region begins after the caller's past and ends before its
// future. Compiled into test programs of preset tsan only.
#include <dlfcn.h>
#include <sanitizer/tsan_interface.h>

namespace {

using Body = void (*)(void*);

struct Region {
  Body body;
  void* data;
  char begin = 0, end = 0;  // their addresses name the two moments
};

void RunBody(void* argument) {
  auto& region = *static_cast<Region*>(argument);
  __tsan_acquire(&region.begin);
  region.body(region.data);
  __tsan_release(&region.end);
}

}  // namespace

extern "C" void GOMP_parallel(Body body, void* data, unsigned threads, unsigned flags) {
  using Parallel = void (*)(Body, void*, unsigned, unsigned);
  static const auto parallel = reinterpret_cast<Parallel>(dlsym(RTLD_NEXT, "GOMP_parallel"));
  Region region{body, data};
  __tsan_release(&region.begin);
  parallel(RunBody, &region, threads, flags);
  __tsan_acquire(&region.end);
}
