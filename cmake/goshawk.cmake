# Compiler settings shared by every target, and the function that declares a floor of the house.

add_library(goshawk_settings INTERFACE)
target_include_directories(goshawk_settings INTERFACE $<BUILD_INTERFACE:${PROJECT_SOURCE_DIR}>)
target_compile_options(goshawk_settings INTERFACE
  -Wall -Wextra -Wpedantic -Wshadow -Wnon-virtual-dtor -Woverloaded-virtual
  # Contraction would let the compiler fuse a*b+c differently on each dispatch target; kernels ask for FMA themselves.
  -ffp-contract=off
  # GCC 12 reports an overlap in std::string's operator+ that cannot happen (GCC bug 105651).
  $<$<CXX_COMPILER_ID:GNU>:-Wno-restrict>
  $<$<BOOL:${GOSHAWK_WERROR}>:-Werror>)
if(GOSHAWK_SANITIZE)
  string(REPLACE ";" "," sanitizers "${GOSHAWK_SANITIZE}")
  target_compile_options(goshawk_settings INTERFACE -fsanitize=${sanitizers} -fno-omit-frame-pointer)
  if("undefined" IN_LIST GOSHAWK_SANITIZE)
    # Checks of every pointer that is followed: half of all compile time, for what the AddressSanitizer or the hardware
    # finds as well.
    target_compile_options(goshawk_settings INTERFACE -fno-sanitize=null,alignment,object-size,vptr)
    # However a program is started, what is found ends it.
    target_compile_options(goshawk_settings INTERFACE -fno-sanitize-recover=undefined)
  endif()
  target_link_options(goshawk_settings INTERFACE -fsanitize=${sanitizers})
  # A caching allocator would hide use-after-free from the sanitizers.
  target_compile_definitions(goshawk_settings INTERFACE GOSHAWK_NO_CACHING_ALLOCATOR)
endif()

# goshawk_floor(NAME LINK libs... [PRIVATE_HEADERS dir KEEP headers...]): the library goshawk_NAME from every source below
# NAME/. Its headers are installed, except for those in dir (only KEEP of them) and parts of sources (-inl.hpp).
function(goshawk_floor name)
  cmake_parse_arguments(ARG "" "PRIVATE_HEADERS" "LINK;KEEP" ${ARGN})
  file(GLOB_RECURSE sources CONFIGURE_DEPENDS ${PROJECT_SOURCE_DIR}/${name}/*.cpp)
  if(NOT sources)
    return()
  endif()
  add_library(goshawk_${name} STATIC ${sources})
  # Settings are for this build; who links the installed library has their own.
  target_link_libraries(goshawk_${name} PUBLIC $<BUILD_INTERFACE:goshawk_settings> ${ARG_LINK})
  target_compile_features(goshawk_${name} PUBLIC cxx_std_20)
  file(GLOB_RECURSE headers CONFIGURE_DEPENDS ${PROJECT_SOURCE_DIR}/${name}/*.hpp)
  list(FILTER headers EXCLUDE REGEX "-inl\\.hpp$")
  if(ARG_PRIVATE_HEADERS)
    list(FILTER headers EXCLUDE REGEX "/${ARG_PRIVATE_HEADERS}/")
    list(APPEND headers ${ARG_KEEP})
  endif()
  # Headers keep their paths, so that they find each other.
  target_sources(goshawk_${name} PUBLIC FILE_SET HEADERS BASE_DIRS ${PROJECT_SOURCE_DIR} FILES ${headers})
endfunction()
