# Target `lwm_libtorch`: LibTorch's CPU libraries, from $LIBTORCH (a folder) or from the wheel in the
# virtual environment that scripts/setup makes. Not find_package(Torch): on a CUDA wheel that demands
# a CUDA toolkit that CPU code does not need.
file(GLOB LWM_WHEEL_TORCH ${CMAKE_SOURCE_DIR}/.venv/lib/python3*/site-packages/torch)
find_path(LIBTORCH_ROOT include/ATen/core/Tensor.h HINTS $ENV{LIBTORCH} ${LWM_WHEEL_TORCH}
          NO_DEFAULT_PATH REQUIRED DOC "LibTorch folder: set LIBTORCH or run scripts/setup")
add_library(lwm_libtorch INTERFACE)
target_include_directories(lwm_libtorch SYSTEM INTERFACE
  ${LIBTORCH_ROOT}/include ${LIBTORCH_ROOT}/include/torch/csrc/api/include)
# Debian's libgomp and the wheel's share a soname: the wheel's folder comes first in the run path, so
# that one copy serves LibTorch, oneDNN and us.
target_link_libraries(lwm_libtorch INTERFACE
  ${LIBTORCH_ROOT}/lib/libtorch_cpu.so ${LIBTORCH_ROOT}/lib/libc10.so)
# at::parallel_for is a header template that runs serially without OpenMP. The wheel's own copy of the
# library (found first at run time) is not a development file, so the compiler's is linked.
target_compile_options(lwm_libtorch INTERFACE -fopenmp)
target_link_options(lwm_libtorch INTERFACE -fopenmp)
target_link_options(lwm_libtorch INTERFACE -Wl,-rpath,${LIBTORCH_ROOT}/lib -Wl,--disable-new-dtags)
