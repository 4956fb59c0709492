# What `cmake --install` puts where, and the Debian package:
#   cpack -G DEB --config build/release/CPackConfig.cmake -B build/package
# packaging/test_deb.sh builds it and tries it in a clean root.

if(NOT TARGET plexus)
  return()
endif()
include(GNUInstallDirs)

# Packaging needs the program, not every test.
set(CMAKE_SKIP_INSTALL_ALL_DEPENDENCY ON)

install(TARGETS plexus RUNTIME DESTINATION ${CMAKE_INSTALL_BINDIR})
install(FILES packaging/plexus.service DESTINATION lib/systemd/system)
install(FILES packaging/plexus.env DESTINATION ${CMAKE_INSTALL_DATADIR}/plexus)
# The documents keep their places to each other, so that their links work.
set(PLEXUS_DOC_DIR ${CMAKE_INSTALL_DATADIR}/doc/plexus)
install(FILES LICENSE README.md DESTINATION ${PLEXUS_DOC_DIR} COMPONENT doc)
install(DIRECTORY docs DESTINATION ${PLEXUS_DOC_DIR} COMPONENT doc
        FILES_MATCHING PATTERN "*.md" PATTERN "*.svg")
install(FILES bench/README.md DESTINATION ${PLEXUS_DOC_DIR}/bench COMPONENT doc)
install(DIRECTORY bench/results DESTINATION ${PLEXUS_DOC_DIR}/bench COMPONENT doc
        FILES_MATCHING PATTERN "*.svg")
install(FILES packaging/README.md DESTINATION ${PLEXUS_DOC_DIR}/packaging COMPONENT doc)
# A package (prefix /usr) also owns files outside its prefix; another prefix never writes there.
install(CODE "
  if(CMAKE_INSTALL_PREFIX STREQUAL \"/usr\")
    file(INSTALL DESTINATION /etc/plexus TYPE FILE
         FILES \"${PROJECT_SOURCE_DIR}/packaging/plexus.env\")
    file(MAKE_DIRECTORY \"\$ENV{DESTDIR}/var/lib/plexus/repository\")
  endif()")

set(CPACK_PACKAGE_NAME plexus)
set(CPACK_PACKAGE_VENDOR "The Plexus authors")
set(CPACK_PACKAGE_CONTACT "The Plexus authors <plexus@localhost>")
set(CPACK_PACKAGE_DESCRIPTION_SUMMARY "Model server that shares few devices among many models")
set(CPACK_PACKAGE_DESCRIPTION
    "Plexus serves ONNX models and pipelines over the Open Inference Protocol. It schedules the
 device's work in small blocks under a policy of the operator's choosing.")
set(CPACK_PACKAGE_VERSION ${PROJECT_VERSION})
set(CPACK_PACKAGING_INSTALL_PREFIX /usr)
set(CPACK_STRIP_FILES ON)
set(CPACK_GENERATOR DEB)
set(CPACK_DEBIAN_FILE_NAME DEB-DEFAULT)
set(CPACK_DEBIAN_PACKAGE_SECTION net)
set(CPACK_DEBIAN_PACKAGE_SHLIBDEPS ON) # needs dpkg-dev
# Loaded at run time, so that no tool sees it: the package that owns it here.
execute_process(COMMAND dpkg-query --search "${PLEXUS_IMGCODECS}" OUTPUT_VARIABLE owner ERROR_QUIET)
if(owner MATCHES "^([^:]+):")
  set(CPACK_DEBIAN_PACKAGE_DEPENDS "${CMAKE_MATCH_1}")
endif()
set(CPACK_DEBIAN_PACKAGE_CONTROL_STRICT_PERMISSION ON)
set(CPACK_DEBIAN_PACKAGE_CONTROL_EXTRA
    "${PROJECT_SOURCE_DIR}/packaging/debian/conffiles"
    "${PROJECT_SOURCE_DIR}/packaging/debian/postinst"
    "${PROJECT_SOURCE_DIR}/packaging/debian/prerm"
    "${PROJECT_SOURCE_DIR}/packaging/debian/postrm")
include(CPack)
