# cmake -DVERSION=... -DSOURCE=DIR -DHEADER=FILE -P: writes FILE, when it changes, with the version
# and the commit that SOURCE stands at, "-changed" with changes on it, "unknown" outside git.
execute_process(COMMAND git -C ${SOURCE} describe --always --abbrev=12 --exclude=* --dirty=-changed
                OUTPUT_VARIABLE commit OUTPUT_STRIP_TRAILING_WHITESPACE ERROR_QUIET)
if(NOT commit)
  set(commit unknown)
endif()
set(text "#define LWM_VERSION \"${VERSION}\"\n#define LWM_COMMIT \"${commit}\"\n")
set(old "")
if(EXISTS ${HEADER})
  file(READ ${HEADER} old)
endif()
if(NOT old STREQUAL text)
  file(WRITE ${HEADER} "${text}")
endif()
