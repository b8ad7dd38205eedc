// For the addon that is given away (target temper_addon_portable): it is built against a newer glibc than the one it
// must load with, 2.31. Functions that glibc moved or renamed since are asked for by the version they had before; the
// linker's --wrap (native/CMakeLists.txt reads the names in this file) sends every call here, also those of the static
// libstdc++. scripts/elf.mjs reads what a library asks for, and scripts/release.mjs refuses one that asks for more.
#include <stdlib.h>
#include <unistd.h>

#if defined(__x86_64__)
#define OLDEST "GLIBC_2.2.5"
#define JUMP(name) "jmp " name "@PLT\n"
#elif defined(__aarch64__)
#define OLDEST "GLIBC_2.17"
#define JUMP(name) "b " name "\n"
#else
#error "there is no prebuilt package for this processor"
#endif

// A jump leaves no frame behind: the function returns, or throws, to whoever called it. A section each, so that the
// linker drops what nobody calls.
#define AS_BEFORE(name, version)                                                               \
  asm(".pushsection .text.__wrap_" #name                                                       \
      ",\"ax\",%progbits\n"                                                                    \
      ".globl __wrap_" #name                                                                   \
      "\n"                                                                                     \
      ".hidden __wrap_" #name                                                                  \
      "\n"                                                                                     \
      ".type __wrap_" #name                                                                    \
      ",%function\n"                                                                           \
      "__wrap_" #name ":\n" JUMP("temper_old_" #name) ".size __wrap_" #name ",.-__wrap_" #name \
                                                      "\n"                                     \
                                                      ".popsection\n"                          \
                                                      ".symver temper_old_" #name "," #name "@" version "\n")

// 2.34 put libdl, libpthread and librt into libc and gave their functions its number. The CUDA runtime asks for most.
AS_BEFORE(dladdr, OLDEST);
AS_BEFORE(dlclose, OLDEST);
AS_BEFORE(dlerror, OLDEST);
AS_BEFORE(dlopen, OLDEST);
AS_BEFORE(dlsym, OLDEST);
AS_BEFORE(dlvsym, OLDEST);
AS_BEFORE(pthread_condattr_setpshared, OLDEST);
AS_BEFORE(pthread_create, OLDEST);
AS_BEFORE(pthread_detach, OLDEST);
AS_BEFORE(pthread_getspecific, OLDEST);
AS_BEFORE(pthread_join, OLDEST);
AS_BEFORE(pthread_key_create, OLDEST);
AS_BEFORE(pthread_key_delete, OLDEST);
AS_BEFORE(pthread_kill, OLDEST);
AS_BEFORE(pthread_mutex_trylock, OLDEST);
AS_BEFORE(pthread_mutexattr_destroy, OLDEST);
AS_BEFORE(pthread_mutexattr_init, OLDEST);
AS_BEFORE(pthread_mutexattr_setpshared, OLDEST);
AS_BEFORE(pthread_mutexattr_settype, OLDEST);
AS_BEFORE(pthread_once, OLDEST);
AS_BEFORE(pthread_rwlock_destroy, OLDEST);
AS_BEFORE(pthread_rwlock_init, OLDEST);
AS_BEFORE(pthread_rwlock_rdlock, OLDEST);
AS_BEFORE(pthread_rwlock_timedrdlock, OLDEST);
AS_BEFORE(pthread_rwlock_timedwrlock, OLDEST);
AS_BEFORE(pthread_rwlock_tryrdlock, OLDEST);
AS_BEFORE(pthread_rwlock_trywrlock, OLDEST);
AS_BEFORE(pthread_rwlock_unlock, OLDEST);
AS_BEFORE(pthread_rwlock_wrlock, OLDEST);
AS_BEFORE(pthread_rwlockattr_destroy, OLDEST);
AS_BEFORE(pthread_rwlockattr_init, OLDEST);
AS_BEFORE(pthread_rwlockattr_setpshared, OLDEST);
AS_BEFORE(pthread_setspecific, OLDEST);
AS_BEFORE(pthread_spin_destroy, OLDEST);
AS_BEFORE(pthread_spin_init, OLDEST);
AS_BEFORE(pthread_spin_lock, OLDEST);
AS_BEFORE(pthread_spin_trylock, OLDEST);
AS_BEFORE(pthread_spin_unlock, OLDEST);
AS_BEFORE(sem_destroy, OLDEST);
AS_BEFORE(sem_init, OLDEST);
AS_BEFORE(sem_post, OLDEST);
AS_BEFORE(sem_timedwait, OLDEST);
AS_BEFORE(sem_trywait, OLDEST);
AS_BEFORE(sem_wait, OLDEST);
AS_BEFORE(shm_open, OLDEST);
AS_BEFORE(shm_unlink, OLDEST);
#if defined(__x86_64__)
AS_BEFORE(dlmopen, "GLIBC_2.3.4");
#endif

extern "C" {
// 2.32: libstdc++ counts references without atomics while there is one thread. Here there never is.
__attribute__((visibility("hidden"))) char __libc_single_threaded = 0;

// 2.33 made functions of what its header had turned into calls of these; the first argument says which struct stat.
#if defined(__x86_64__)
constexpr int STAT_VERSION = 1;
#else
constexpr int STAT_VERSION = 0;
#endif
struct stat;
int temper_old_fxstat(int version, int file, struct stat* out);
int temper_old_xstat(int version, const char* path, struct stat* out);
int temper_old_lxstat(int version, const char* path, struct stat* out);
asm(".symver temper_old_fxstat,__fxstat@" OLDEST);
asm(".symver temper_old_xstat,__xstat@" OLDEST);
asm(".symver temper_old_lxstat,__lxstat@" OLDEST);
#define HIDDEN __attribute__((visibility("hidden")))
// On 64-bit machines struct stat64 is the same.
HIDDEN int __wrap_fstat(int file, struct stat* out) { return temper_old_fxstat(STAT_VERSION, file, out); }
HIDDEN int __wrap_fstat64(int file, struct stat* out) { return temper_old_fxstat(STAT_VERSION, file, out); }
HIDDEN int __wrap_stat(const char* path, struct stat* out) { return temper_old_xstat(STAT_VERSION, path, out); }
HIDDEN int __wrap_lstat(const char* path, struct stat* out) { return temper_old_lxstat(STAT_VERSION, path, out); }

// 2.36, and libstdc++'s random_device alone calls it.
HIDDEN unsigned __wrap_arc4random() {
  unsigned value;
  if (getentropy(&value, sizeof value) != 0) abort();
  return value;
}
}
