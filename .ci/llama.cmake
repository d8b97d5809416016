# Injected into llama-cpp-python's build (CMAKE_PROJECT_INCLUDE): its bindings load only libllama and libggml,
# yet its CMakeLists forces llama.cpp's `common` library (an HTTP server, templates, argument parsing) into the cache.
# A normal variable shadows that cache entry (policy CMP0126), which cuts the build from about 10 to 2 minutes.
set(LLAMA_BUILD_COMMON OFF)
