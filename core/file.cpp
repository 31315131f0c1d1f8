#include "core/file.hpp"

#include <algorithm>
#include <atomic>
#include <cerrno>
#include <charconv>
#include <exception>
#include <fcntl.h>
#include <filesystem>
#include <poll.h>
#include <stdio.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <system_error>
#include <unistd.h>
#include <utility>

namespace goshawk {
namespace {

std::string_view remedy(int error) {
  switch (error) {
    case ENOSPC:
    case EDQUOT:
      return "free some space or choose another place";
    case EFBIG:
      return "raise the limit on file sizes (ulimit -f) or choose another place";
    case EACCES:
    case EPERM:
    case EROFS:
      return "change its permissions or choose another place";
    case ENOENT:
      return "check the path, and make the directories above it first";
    case ENOTDIR:
      return "a file stands where a directory is needed; choose another path";
    case EISDIR:
      return "give the path of a file";
    case EEXIST:
      return "remove what has that name or choose another path";
    case EMFILE:
    case ENFILE:
      return "raise the limit on open files (ulimit -n)";
    case EIO:
      return "check the disk";
    default:
      return "check the path and the disk";
  }
}

[[noreturn]] void fail_system(std::string_view op, std::string_view what, std::string_view path, int error) {
  fail("[{}] cannot {} {}: {}; {}", op, what, path, std::generic_category().message(error), remedy(error));
}

// Repeats a system call that a signal interrupted.
template <class F>
auto uninterrupted(const F& call) {
  decltype(call()) result;
  do {
    result = call();
  } while (result == -1 && errno == EINTR);
  return result;
}

// A descriptor that is closed at the end of its scope.
class Descriptor {
 public:
  explicit Descriptor(int value) : value_(value) {}
  ~Descriptor() {
    if (value_ >= 0) ::close(value_);
  }
  Descriptor(const Descriptor&) = delete;
  Descriptor& operator=(const Descriptor&) = delete;
  int get() const { return value_; }
  int release() { return std::exchange(value_, -1); }

 private:
  int value_;
};

// The system would take what stands before a zero byte for the path, and so would whoever reads the message.
void check_path(const std::string& path) {
  const std::size_t zero = path.find('\0');
  check(zero == std::string::npos,
        "[file] the path that begins with '{}' has a zero byte behind that; give one without",
        std::string_view(path).substr(0, zero));
}

int open_file(const std::string& path, int flags, mode_t mode = 0) {
  check_path(path);
  return uninterrupted([&] { return ::open(path.c_str(), flags | O_CLOEXEC, mode); });
}

// Returns 0 or the error number.
int write_all(int descriptor, std::span<const std::byte> bytes) {
  while (!bytes.empty()) {
    const ssize_t n = uninterrupted([&] { return ::write(descriptor, bytes.data(), bytes.size()); });
    if (n < 0 && errno == EAGAIN) {
      // A pipe or socket that this process was given may be one that does not wait.
      pollfd room{descriptor, POLLOUT, 0};
      if (uninterrupted([&] { return ::poll(&room, 1, -1); }) < 0) return errno;
      continue;
    }
    if (n < 0) return errno;
    if (n == 0) return EIO;
    bytes = bytes.subspan(static_cast<std::size_t>(n));
  }
  return 0;
}

int sync(int descriptor) {
  return uninterrupted([&] { return ::fsync(descriptor); }) == 0 ? 0 : errno;
}

// A new name in a directory survives a crash of the system only when the directory is synced too.
int sync_directory_of(const std::string& path) {
  const std::string parent = std::filesystem::path(path).parent_path().string();
  const Descriptor directory(open_file(parent.empty() ? "." : parent, O_RDONLY | O_DIRECTORY));
  // A directory one may write in but not read cannot be opened for syncing.
  if (directory.get() < 0) return errno == EACCES ? 0 : errno;
  const int error = sync(directory.get());
  // Some file systems do not sync directories.
  return error == EINVAL ? 0 : error;
}

// Whether `path` is a descriptor's name, /proc/PROCESS/fd/N; its directory may be a link, as /dev/fd is.
bool names_descriptor(const std::filesystem::path& path) {
  std::error_code error;
  const auto directory = std::filesystem::canonical(path.parent_path() / ".", error);
  return !error && directory.filename() == "fd" && directory.string().starts_with("/proc/");
}

// Opens for writing what `path` names, which is as names_descriptor() says. Opened anew, a regular file would
// be overwritten from its beginning: a descriptor of this process is duplicated, with its position and
// whether it appends; what another process has open is appended to. Returns -1 on failure.
int open_descriptor(const std::filesystem::path& path) {
  std::error_code error;
  const std::string own = std::filesystem::canonical("/proc/self", error).string() + "/";
  const std::string directory = std::filesystem::canonical(path.parent_path() / ".", error).string();
  const std::string name = path.filename().string();
  int number = 0;
  const auto [end, bad] = std::from_chars(name.data(), name.data() + name.size(), number);
  if (!directory.starts_with(own) || bad != std::errc() || end != name.data() + name.size()) {
    return open_file(path.string(), O_WRONLY | O_APPEND);
  }
  const int flags = ::fcntl(number, F_GETFL);
  if (flags < 0) return -1;
  if ((flags & O_ACCMODE) == O_RDONLY) {
    errno = EBADF;
    return -1;
  }
  return ::fcntl(number, F_DUPFD_CLOEXEC, 0);
}

// The file that `path` names, symbolic links followed, whether it exists or not. A descriptor's name is left
// as it is, for the link there leads to the file's name and not to the open file.
std::string linked_file(const std::string& path) {
  check_path(path);
  std::filesystem::path target = path;
  constexpr int kMostLinks = 40;  // as Linux; a circle is left to the system call that comes next
  for (int links = 0; links < kMostLinks && !names_descriptor(target); ++links) {
    std::error_code error;
    const auto next = std::filesystem::read_symlink(target, error);
    if (error) break;
    target = target.parent_path() / next;
  }
  return target.string();
}

// Room for `size` bytes of a file that has at least `known`.
void make_room(std::string& bytes, std::size_t size, std::size_t known, const std::string& path) {
  try {
    bytes.resize(size);
  } catch (const std::exception&) {  // bad_alloc or length_error
    fail("[read_file] {} has {} bytes or more, which memory has no room for; check that it is the right file",
         path, known);
  }
}

}  // namespace

std::string read_file(const std::string& path) {
  const Descriptor file(open_file(path, O_RDONLY));
  if (file.get() < 0) fail_system("read_file", "open", path, errno);
  struct stat status {};
  if (::fstat(file.get(), &status) != 0) fail_system("read_file", "read", path, errno);
  // One byte more than expected, so that the end is seen without growing. A pipe has no size.
  constexpr std::size_t kStep = std::size_t{1} << 16;
  const std::size_t size = S_ISREG(status.st_mode) ? static_cast<std::size_t>(status.st_size) : 0;
  std::string bytes;
  make_room(bytes, size > 0 ? size + 1 : kStep, size, path);
  std::size_t used = 0;
  for (;;) {
    if (used == bytes.size()) make_room(bytes, used + std::max(kStep, used / 2), used, path);
    const ssize_t n =
        uninterrupted([&] { return ::read(file.get(), bytes.data() + used, bytes.size() - used); });
    if (n < 0) fail_system("read_file", "read", path, errno);
    if (n == 0) break;
    used += static_cast<std::size_t>(n);
  }
  bytes.resize(used);
  return bytes;
}

void write_file_atomic(const std::string& path, std::span<const std::byte> bytes) {
  AtomicFile file(path);
  file.write(bytes);
  file.commit();
}

void write_file_atomic(const std::string& path, std::string_view text) {
  write_file_atomic(path, std::as_bytes(std::span(text.data(), text.size())));
}

void append_line_synced(const std::string& path, std::string_view line) {
  check(line.find('\n') == std::string_view::npos,
        "[append_line_synced] a line for {} has a line break in it; append its lines one by one", path);
  const Descriptor file(open_file(path, O_RDWR | O_APPEND | O_CREAT, 0666));
  if (file.get() < 0) fail_system("append_line_synced", "open", path, errno);
  struct stat status {};
  if (::fstat(file.get(), &status) != 0) fail_system("append_line_synced", "write to", path, errno);
  const bool regular = S_ISREG(status.st_mode);
  std::string text;
  if (regular && status.st_size > 0) {
    char last = '\n';
    const ssize_t n = uninterrupted([&] { return ::pread(file.get(), &last, 1, status.st_size - 1); });
    if (n < 0) fail_system("append_line_synced", "read", path, errno);
    if (last != '\n') text.push_back('\n');
  }
  text.append(line).push_back('\n');
  int error = write_all(file.get(), std::as_bytes(std::span(text)));
  if (error == 0 && regular) error = sync(file.get());
  if (error == 0 && regular && status.st_size == 0) error = sync_directory_of(linked_file(path));
  if (error != 0) {
    // Half a line would spoil the file. Should this fail too, the next call keeps the half line apart.
    if (regular) static_cast<void>(uninterrupted([&] { return ::ftruncate(file.get(), status.st_size); }));
    fail_system("append_line_synced", "write to", path, error);
  }
}

void make_directories(const std::string& path) {
  check_path(path);
  std::error_code error;
  std::filesystem::create_directories(path, error);
  if (error) fail_system("make_directories", "make the directory", path, error.value());
  // A directory that was there may still refuse files; better said now than after hours of work.
  if (::access(path.c_str(), W_OK | X_OK) != 0) {
    fail_system("make_directories", "write in the directory", path, errno);
  }
}

namespace {

// The lock's descriptor, or -1 when it is held elsewhere and `how` says not to wait.
int lock_file(const std::string& path, int how) {
  Descriptor file(open_file(path, O_RDWR | O_CREAT, 0666));
  if (file.get() < 0) fail_system("lock", "open", path, errno);
  if (uninterrupted([&] { return ::flock(file.get(), how); }) == 0) return file.release();
  if (errno == EWOULDBLOCK) return -1;
  fail_system("lock", "lock", path, errno);
}

}  // namespace

FileLock::FileLock(const std::string& path) : descriptor_(lock_file(path, LOCK_EX)) {}

std::optional<FileLock> FileLock::try_lock(const std::string& path) {
  const int descriptor = lock_file(path, LOCK_EX | LOCK_NB);
  if (descriptor < 0) return std::nullopt;
  return FileLock(descriptor);
}

FileLock::FileLock(FileLock&& other) noexcept : descriptor_(std::exchange(other.descriptor_, -1)) {}

FileLock::~FileLock() {
  if (descriptor_ >= 0) ::close(descriptor_);
}

FileReader::FileReader(const std::string& path) : path_(path) {
  // A pipe would otherwise have to wait for its writer before it can be refused.
  Descriptor file(open_file(path, O_RDONLY | O_NONBLOCK));
  if (file.get() < 0) fail_system("read", "open", path, errno);
  struct stat status {};
  if (::fstat(file.get(), &status) != 0) fail_system("read", "read", path, errno);
  if (S_ISDIR(status.st_mode)) fail_system("read", "read", path, EISDIR);
  check(S_ISREG(status.st_mode), "[read] {} is a pipe or device; copy it to a file first", path);
  if (::fcntl(file.get(), F_SETFL, 0) != 0) fail_system("read", "read", path, errno);
  size_ = status.st_size;
  descriptor_ = file.release();
}

FileReader::~FileReader() {
  ::close(descriptor_);
}

void FileReader::read(std::span<std::byte> to) {
  while (!to.empty()) {
    const ssize_t n = uninterrupted([&] { return ::read(descriptor_, to.data(), to.size()); });
    if (n < 0) fail_system("read", "read", path_, errno);
    check(n > 0, "[read] {} ends {} bytes too early; it is truncated: copy or download it again", path_,
          to.size());
    to = to.subspan(static_cast<std::size_t>(n));
  }
}

std::string FileReader::read_string(std::int64_t bytes) {
  std::string text(static_cast<std::size_t>(bytes), '\0');
  read(std::as_writable_bytes(std::span(text)));
  return text;
}

AtomicFile::AtomicFile(const std::string& path) : path_(path), target_(linked_file(path)) {
  if (names_descriptor(target_)) {
    descriptor_ = open_descriptor(target_);
    if (descriptor_ < 0) fail_system("write", "write", path_, errno);
    return;
  }
  struct stat status {};
  const bool exists = ::stat(target_.c_str(), &status) == 0;
  if (!exists && errno != ENOENT) fail_system("write", "write", path_, errno);
  if (exists && S_ISDIR(status.st_mode)) fail_system("write", "write", path_, EISDIR);
  if (exists && ::access(target_.c_str(), W_OK) != 0) fail_system("write", "write", path_, errno);
  if (exists && !S_ISREG(status.st_mode)) {
    descriptor_ = open_file(target_, O_WRONLY);
    if (descriptor_ < 0) fail_system("write", "open", path_, errno);
    return;
  }
  static std::atomic<unsigned> number{0};
  do {
    // A name that exists was left by a killed process which had our process number.
    temporary_ = fmt::format("{}.tmp-{}-{}", target_, ::getpid(), number++);
    descriptor_ = open_file(temporary_, O_WRONLY | O_CREAT | O_EXCL, 0666);
  } while (descriptor_ < 0 && errno == EEXIST);
  if (descriptor_ < 0) fail_system("write", "write", path_, errno);
  // Only a courtesy: the file system may not know permissions.
  if (exists) static_cast<void>(::fchmod(descriptor_, status.st_mode & 07777));
}

AtomicFile::~AtomicFile() {
  discard();
}

void AtomicFile::discard() noexcept {
  if (descriptor_ < 0) return;
  ::close(descriptor_);
  descriptor_ = -1;
  if (!temporary_.empty()) ::unlink(temporary_.c_str());
}

void AtomicFile::write(std::span<const std::byte> bytes) {
  check(descriptor_ >= 0, "[write] {} was already committed or given up; open it again", path_);
  if (const int error = write_all(descriptor_, bytes); error != 0) {
    discard();
    fail_system("write", "write", path_, error);
  }
}

void AtomicFile::commit() {
  check(descriptor_ >= 0, "[write] {} was already committed or given up; open it again", path_);
  int error = temporary_.empty() ? 0 : sync(descriptor_);
  if (error == 0) {
    // Network file systems report a full disk only here. A close that was interrupted is still done.
    const int descriptor = std::exchange(descriptor_, -1);
    if (::close(descriptor) != 0 && errno != EINTR) error = errno;
    if (error == 0 && !temporary_.empty() && ::rename(temporary_.c_str(), target_.c_str()) != 0)
      error = errno;
    if (error != 0 && !temporary_.empty()) ::unlink(temporary_.c_str());
  }
  if (error != 0) {
    discard();
    fail_system("write", "write", path_, error);
  }
  if (temporary_.empty()) return;
  // Too late to give up: every reader has the new content already.
  error = sync_directory_of(target_);
  check(error == 0,
        "[write] {} has its new content, but a crash of the system may bring the old back: its directory "
        "cannot be synced: {}; {}",
        path_, std::generic_category().message(error), remedy(error));
}

}  // namespace goshawk
