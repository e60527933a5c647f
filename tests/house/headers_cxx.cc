// The public headers, read by a C++ compiler: they must stand alone, in any order, with C linkage.
#include <apium/apium.h>

int
main()
{
    apium_error err{};
    return apium_status_text(err.status) == nullptr;
}
