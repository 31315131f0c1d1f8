# cmake --install: the programs, the libraries, their headers, and what find_package and pkg-config read.
include(GNUInstallDirs)
include(CMakePackageConfigHelpers)

set(floors core autograd nn models datasets quant)
set(header_dir ${CMAKE_INSTALL_INCLUDEDIR}/goshawk)

# One target to link: goshawk::goshawk. The floors stay static libraries; the linker takes what is used.
add_library(goshawk_all INTERFACE)
list(TRANSFORM floors PREPEND goshawk_ OUTPUT_VARIABLE floor_targets)
list(REVERSE floor_targets)
target_link_libraries(goshawk_all INTERFACE ${floor_targets})
set_target_properties(goshawk_all PROPERTIES EXPORT_NAME goshawk)
add_library(goshawk::goshawk ALIAS goshawk_all)

install(TARGETS goshawk_all ${floor_targets} EXPORT goshawk
        ARCHIVE DESTINATION ${CMAKE_INSTALL_LIBDIR} FILE_SET HEADERS DESTINATION ${header_dir})
install(EXPORT goshawk NAMESPACE goshawk:: DESTINATION ${CMAKE_INSTALL_LIBDIR}/cmake/goshawk FILE goshawkTargets.cmake)
configure_package_config_file(${PROJECT_SOURCE_DIR}/cmake/goshawkConfig.cmake.in goshawkConfig.cmake
                              INSTALL_DESTINATION ${CMAKE_INSTALL_LIBDIR}/cmake/goshawk)
write_basic_package_version_file(goshawkConfigVersion.cmake COMPATIBILITY SameMinorVersion)
install(FILES ${CMAKE_CURRENT_BINARY_DIR}/goshawkConfig.cmake ${CMAKE_CURRENT_BINARY_DIR}/goshawkConfigVersion.cmake
        DESTINATION ${CMAKE_INSTALL_LIBDIR}/cmake/goshawk)

list(JOIN floor_targets " -l" archives)
# The prefix is known only when it is installed: the file says where that is from where it lies.
file(RELATIVE_PATH pc_to_prefix /prefix/${CMAKE_INSTALL_LIBDIR}/pkgconfig /prefix)
configure_file(${PROJECT_SOURCE_DIR}/cmake/goshawk.pc.in goshawk.pc @ONLY)
install(FILES ${CMAKE_CURRENT_BINARY_DIR}/goshawk.pc DESTINATION ${CMAKE_INSTALL_LIBDIR}/pkgconfig)
install(FILES ${PROJECT_SOURCE_DIR}/LICENSE DESTINATION ${CMAKE_INSTALL_DOCDIR})

# cpack -G DEB, in the build directory.
set(CPACK_PACKAGE_NAME goshawk)
set(CPACK_PACKAGE_VENDOR goshawk)
set(CPACK_PACKAGE_CONTACT "The Goshawk developers <goshawk@localhost>")
set(CPACK_DEBIAN_FILE_NAME DEB-DEFAULT)
set(CPACK_DEBIAN_PACKAGE_SECTION libdevel)
set(CPACK_DEBIAN_PACKAGE_SHLIBDEPS ON)
# Whoever links the static libraries links these too.
set(CPACK_DEBIAN_PACKAGE_DEPENDS "libtbb-dev, libopenblas-dev, libhwy-dev, libfmt-dev, nlohmann-json3-dev")
set(CPACK_STRIP_FILES ON)
include(CPack)
