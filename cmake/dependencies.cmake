# The libraries that lwm's modules use, as targets; for the build and for find_package(lwm) alike.
# LWM_LIBTORCH_HINTS: folders that may hold LibTorch, after $LIBTORCH.
set(CMAKE_FIND_PACKAGE_TARGETS_GLOBAL ON)  # a parent project links them through lwm's targets
find_package(Threads REQUIRED)
find_package(fmt REQUIRED)
find_package(nlohmann_json REQUIRED)
find_package(MPI QUIET COMPONENTS C)

# lwm_library(NAME LIBRARY...): target lwm_deps::NAME of system libraries without a CMake package.
function(lwm_library name)
  add_library(lwm_deps::${name} INTERFACE IMPORTED GLOBAL)
  foreach(library ${ARGN})
    find_library(LWM_LIBRARY_${library} ${library} REQUIRED)
    mark_as_advanced(LWM_LIBRARY_${library})
    target_link_libraries(lwm_deps::${name} INTERFACE ${LWM_LIBRARY_${library}})
  endforeach()
endfunction()

if(NOT TARGET lwm_deps::libtorch)
  lwm_library(dnnl dnnl)
  lwm_library(hwy hwy)
  lwm_library(sentencepiece sentencepiece sentencepiece_train)
  lwm_library(xxhash xxhash)
  lwm_library(pcre2 pcre2-8)
  lwm_library(zlib z)
  lwm_library(media avformat avcodec swscale avutil jpeg png tiff webp webpdemux)

  # LibTorch's CPU libraries. Not find_package(Torch): on a CUDA wheel that demands a CUDA toolkit that
  # CPU code does not need.
  find_path(LIBTORCH_ROOT include/ATen/core/Tensor.h HINTS $ENV{LIBTORCH} ${LWM_LIBTORCH_HINTS}
            NO_DEFAULT_PATH REQUIRED DOC "LibTorch folder: set LIBTORCH or run scripts/setup")
  add_library(lwm_deps::libtorch INTERFACE IMPORTED GLOBAL)
  target_include_directories(lwm_deps::libtorch SYSTEM INTERFACE
    ${LIBTORCH_ROOT}/include ${LIBTORCH_ROOT}/include/torch/csrc/api/include)
  # Debian's oneDNN comes before LibTorch, which holds a oneDNN of its own: both export the initialiser
  # of their matrix products of older processors under one name (std::call_once over a type of theirs),
  # and the first in this order serves both; the other's generator stays empty. With LibTorch's first,
  # our attention tiles fail without AVX-512. With ours first, LibTorch multiplies bf16 number by number
  # on AVX-512 without BF16, so we do not let it (ops/product.h).
  # An option, since CMake sorts libraries.
  target_link_options(lwm_deps::libtorch INTERFACE
    LINKER:--push-state,--no-as-needed,${LWM_LIBRARY_dnnl},--pop-state)
  target_link_libraries(lwm_deps::libtorch INTERFACE
    ${LIBTORCH_ROOT}/lib/libtorch_cpu.so ${LIBTORCH_ROOT}/lib/libc10.so)
  # at::parallel_for is a header template that runs serially without OpenMP. The wheel's own copy of
  # the library (found first at run time) is not a development file, so the compiler's is linked.
  target_compile_options(lwm_deps::libtorch INTERFACE -fopenmp)
  # Debian's libgomp and the wheel's share a soname: with DT_RPATH the wheel's folder, which CMake puts
  # there, serves libraries of libraries too, and one copy LibTorch, oneDNN and us.
  target_link_options(lwm_deps::libtorch INTERFACE -fopenmp -Wl,--disable-new-dtags)
endif()
