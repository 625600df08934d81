# Builds only what the runtime loads: libllama, libggml, libggml-base, libggml-cpu (and a GPU backend if asked for).
#
# Use: CMAKE_ARGS="-DCMAKE_PROJECT_llama_cpp_INCLUDE=<this file>" pip install llama-cpp-python
#
# llama-cpp-python's CMakeLists.txt forces LLAMA_BUILD_COMMON=ON in the cache (chat parsing, HTTP client, argument
# parsing of llama.cpp's own programs). A normal variable set inside project() shadows that cache entry.
set(LLAMA_BUILD_COMMON OFF)
# Multimodal (libmtmd): image and audio input, which no model of ours takes.
set(LLAVA_BUILD OFF)
