# Injected into llama-cpp-python's build (CMAKE_PROJECT_INCLUDE): its bindings load only libllama and libggml,
# yet its CMakeLists forces llama.cpp's `common` library (an HTTP server, templates, argument parsing) into the cache.
# A normal variable shadows that cache entry (policy CMP0126), which cuts the build from about 10 to 2 minutes.
set(LLAMA_BUILD_COMMON OFF)
# gcc before 13.3 may leave out the stores of llama.cpp's tile configuration, since its intrinsic names only the first
# bytes as read; the first tile instruction then ends the process on a processor with AMX (ggml-org/llama.cpp#26954).
if(CMAKE_C_COMPILER_ID STREQUAL "GNU" AND CMAKE_C_COMPILER_VERSION VERSION_LESS 13.3
   AND CMAKE_SYSTEM_PROCESSOR MATCHES "x86_64|amd64|AMD64")
  add_compile_options(-mno-amx-tile -mno-amx-int8 -mno-amx-bf16)
endif()
