#include <atomic>
#include <csignal>
#include <doctest/doctest.h>
#include <fcntl.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/time.h>
#include <sys/wait.h>
#include <thread>
#include <unistd.h>
#include <vector>

#include "core/file.hpp"
#include "tests/support/file_size_limit.hpp"
#include "tests/support/scratch_directory.hpp"

using namespace goshawk;

TEST_CASE("a file is read as it was written, whatever its length") {
  const ScratchDirectory directory;
  for (std::size_t size : {0, 1, 4095, 65536, 65537, 300000}) {
    std::string bytes(size, '\0');
    for (std::size_t i = 0; i < size; ++i) bytes[i] = static_cast<char>(i * 7 % 256);
    write_file_atomic(directory / "file", bytes);
    CHECK(directory.read("file") == bytes);
    CHECK(read_file(directory / "file") == bytes);
    CHECK(directory.entries() == 1);
  }
}

// The sanitizers' allocators end the program instead.
#if !defined(__SANITIZE_ADDRESS__) && !defined(__SANITIZE_THREAD__)
TEST_CASE("a file that memory has no room for is named with its size") {
  const ScratchDirectory directory;
  const std::string path = directory.write("file", "x");
  std::filesystem::resize_file(path, std::uintmax_t{1} << 40);  // without blocks on the disk
  rlimit before{};
  REQUIRE(::getrlimit(RLIMIT_AS, &before) == 0);
  rlimit limit = before;
  limit.rlim_cur = rlim_t{1} << 40;
  REQUIRE(::setrlimit(RLIMIT_AS, &limit) == 0);
  const std::string message = error_of([&] { read_file(path); });
  ::setrlimit(RLIMIT_AS, &before);
  CHECK(contains(message, path + " has 1099511627776 bytes or more, which memory has no room for"));
}
#endif

TEST_CASE("a FileReader gives the file piece by piece and knows its end") {
  const ScratchDirectory directory;
  const std::string path = directory.write("file", "abcdefgh");
  FileReader reader(path);
  CHECK(reader.size() == 8);
  CHECK(reader.path() == path);
  CHECK(reader.read_string(3) == "abc");
  CHECK(reader.read_string(0).empty());
  CHECK(reader.read_string(5) == "defgh");
  const std::string message = error_of([&] { reader.read_string(1); });
  CHECK(contains(message, path));
  CHECK(contains(message, "truncated"));
}

TEST_CASE("what cannot be read is named with the reason and the remedy") {
  const ScratchDirectory directory;
  directory.write("file", "x");
  const auto expect = [](const std::string& path, const char* reason, const char* remedy) {
    for (const std::string& message :
         {error_of([&] { read_file(path); }), error_of([&] { FileReader reader(path); })}) {
      CAPTURE(message);
      CHECK(contains(message, path));
      CHECK(contains(message, reason));
      CHECK(contains(message, remedy));
      CHECK_FALSE(contains(message, "\n"));
    }
  };
  expect(directory / "missing", "No such file or directory", "check the path");
  expect(directory / "file/below", "Not a directory", "a file stands where a directory is needed");
  expect(directory.path().string(), "Is a directory", "give the path of a file");
  expect(directory / std::string(300, 'n'), "File name too long", "check the path");
}

TEST_CASE("a FileReader refuses a pipe without waiting for its writer") {
  const ScratchDirectory directory;
  const std::string path = directory / "pipe";
  REQUIRE(::mkfifo(path.c_str(), 0600) == 0);
  ::alarm(20);  // ends a process that waits
  CHECK(contains(error_of([&] { FileReader reader(path); }), path + " is a pipe or device"));
  ::alarm(0);
}

TEST_CASE("a path with a zero byte is refused and not cut there") {
  const ScratchDirectory directory;
  directory.write("file", "old");
  const std::string path = (directory / "file") + '\0' + ".txt";
  for (const std::string& message :
       {error_of([&] { read_file(path); }), error_of([&] { FileReader reader(path); }),
        error_of([&] { write_file_atomic(path, "new"); }), error_of([&] { append_line_synced(path, "new"); }),
        error_of([&] { FileLock lock(path); }), error_of([&] { make_directories(path); })}) {
    CAPTURE(message);
    CHECK(contains(message, "'" + (directory / "file") + "' has a zero byte"));
  }
  CHECK(directory.read("file") == "old");
  CHECK(directory.entries() == 1);
}

TEST_CASE("what cannot be written is named with the reason and the remedy") {
  const ScratchDirectory directory;
  directory.write("file", "x");
  const auto expect = [](const std::string& path, const char* reason, const char* remedy) {
    for (const std::string& message : {error_of([&] { write_file_atomic(path, "new"); }),
                                       error_of([&] { append_line_synced(path, "new"); })}) {
      CAPTURE(message);
      CHECK(contains(message, path));
      CHECK(contains(message, reason));
      CHECK(contains(message, remedy));
      CHECK_FALSE(contains(message, "\n"));
    }
  };
  expect(directory / "missing/file", "No such file or directory", "make the directories above it first");
  expect(directory / "file/below", "Not a directory", "a file stands where a directory is needed");
  expect(directory.path().string(), "Is a directory", "give the path of a file");
  expect("/dev/full", "No space left on device", "free some space");
  CHECK(directory.entries() == 1);
}

TEST_CASE("a write that fails half-way leaves the old file and no other") {
  const ScratchDirectory directory;
  const std::string path = directory.write("file", "old content");
  const std::string big(10000, 'b');
  std::string message;
  SUBCASE("in one piece") {
    const FileSizeLimit limit(4096);
    message = error_of([&] { write_file_atomic(path, big); });
  }
  SUBCASE("in several pieces, and the writer knows that it failed") {
    AtomicFile file(path);
    {
      const FileSizeLimit limit(4096);
      file.write("first");
      message = error_of([&] { file.write(big); });
    }
    CHECK(directory.entries() == 1);
    CHECK(contains(error_of([&] { file.write("more"); }), "given up"));
    CHECK(contains(error_of([&] { file.commit(); }), "given up"));
  }
  CAPTURE(message);
  CHECK(contains(message, path));
  CHECK(contains(message, "File too large"));
  CHECK(contains(message, "ulimit -f"));
  CHECK(directory.read("file") == "old content");
  CHECK(directory.entries() == 1);
}

TEST_CASE("an AtomicFile is seen only after commit") {
  const ScratchDirectory directory;
  directory.write("file", "old");
  {
    AtomicFile file(directory / "file");
    file.write("new, but given up");
    CHECK(directory.read("file") == "old");
    CHECK(directory.entries() == 2);
  }
  CHECK(directory.read("file") == "old");
  CHECK(directory.entries() == 1);
  AtomicFile file(directory / "file");
  file.write("new ");
  file.write("content");
  CHECK(directory.read("file") == "old");
  file.commit();
  CHECK(directory.read("file") == "new content");
  CHECK(directory.entries() == 1);
  CHECK(contains(error_of([&] { file.write("more"); }), "already committed"));
  CHECK(directory.read("file") == "new content");
}

TEST_CASE("a rename that fails leaves no temporary file") {
  const ScratchDirectory directory;
  AtomicFile file(directory / "name");
  file.write("content");
  std::filesystem::create_directories(directory.path() / "name/full");
  CHECK(contains(error_of([&] { file.commit(); }), "Is a directory"));
  CHECK(directory.entries() == 1);
}

TEST_CASE("two writers of one file do not mix") {
  const ScratchDirectory directory;
  AtomicFile first(directory / "file");
  AtomicFile second(directory / "file");
  first.write("first");
  second.write("second");
  first.commit();
  CHECK(directory.read("file") == "first");
  second.commit();
  CHECK(directory.read("file") == "second");
  CHECK(directory.entries() == 1);
}

TEST_CASE("a leftover of a killed process with our number is not in the way and not touched") {
  const ScratchDirectory directory;
  std::string leftover;
  {
    const AtomicFile file(directory / "file");
    leftover = std::filesystem::directory_iterator(directory.path())->path().filename().string();
  }
  const std::size_t dash = leftover.rfind('-') + 1;
  const std::string next = leftover.substr(0, dash) + std::to_string(std::stoi(leftover.substr(dash)) + 1);
  directory.write(next, "leftover");
  write_file_atomic(directory / "file", "content");
  CHECK(directory.read("file") == "content");
  CHECK(directory.read(next) == "leftover");
}

TEST_CASE("symbolic links are followed and permissions are kept") {
  const ScratchDirectory directory;
  directory.write("elsewhere/target", "old");
  std::filesystem::create_symlink("elsewhere/target", directory.path() / "link");
  REQUIRE(::chmod((directory / "elsewhere/target").c_str(), 0640) == 0);
  write_file_atomic(directory / "link", "new");
  CHECK(std::filesystem::is_symlink(directory.path() / "link"));
  CHECK(directory.read("elsewhere/target") == "new");
  struct stat status {};
  REQUIRE(::stat((directory / "elsewhere/target").c_str(), &status) == 0);
  CHECK((status.st_mode & 07777) == 0640);
}

TEST_CASE("a symbolic link to a file that is not there yet makes it there") {
  const ScratchDirectory directory;
  make_directories(directory / "elsewhere");
  std::filesystem::create_symlink("../second", directory.path() / "elsewhere/first");
  std::filesystem::create_symlink("elsewhere/first", directory.path() / "link");
  write_file_atomic(directory / "link", "new");
  CHECK(std::filesystem::is_symlink(directory.path() / "link"));
  CHECK(std::filesystem::is_symlink(directory.path() / "elsewhere/first"));
  CHECK(directory.read("second") == "new");
  std::filesystem::create_symlink(directory / "third", directory.path() / "absolute");
  write_file_atomic(directory / "absolute", "newer");
  CHECK(directory.read("third") == "newer");
  std::filesystem::create_symlink("circle", directory.path() / "circle");
  CHECK(contains(error_of([&] { write_file_atomic(directory / "circle", "x"); }), directory / "circle"));
  CHECK(std::filesystem::is_symlink(directory.path() / "circle"));
}

TEST_CASE("a descriptor's name means the open file, not the file's name") {
  const ScratchDirectory directory;
  const std::string path = directory.write("log", "before\n");
  const int appending = ::open(path.c_str(), O_WRONLY | O_APPEND);
  REQUIRE(appending >= 0);
  std::string expected = "before\n";
  for (const std::string& in :
       {std::string("/dev/fd/"), std::string("/proc/self/fd/"), fmt::format("/proc/{}/fd/", ::getpid()),
        fmt::format("/proc/{0}/task/{0}/fd/", ::getpid())}) {
    CAPTURE(in);
    write_file_atomic(in + std::to_string(appending), in + "\n");
    expected += in + "\n";
    CHECK(directory.read("log") == expected);
  }
  // Through links, as /dev/stdout is one, and what is written otherwise before and after.
  std::filesystem::create_symlink("/dev/fd/" + std::to_string(appending), directory.path() / "first");
  std::filesystem::create_symlink("first", directory.path() / "second");
  write_file_atomic(directory / "second", "linked\n");
  CHECK(::write(appending, "after\n", 6) == 6);
  CHECK(directory.read("log") == expected + "linked\nafter\n");
  ::close(appending);

  // Without O_APPEND, from where the descriptor stands, also when the file has lost its name.
  const int standing = ::open(path.c_str(), O_RDWR | O_TRUNC);
  REQUIRE(standing >= 0);
  const std::string name = "/dev/fd/" + std::to_string(standing);
  CHECK(::write(standing, "one ", 4) == 4);
  write_file_atomic(name, "two ");
  std::filesystem::remove(path);
  write_file_atomic(name, "three");
  std::string text(20, '\0');
  CHECK(::pread(standing, text.data(), text.size(), 0) == 13);
  CHECK(text.substr(0, 13) == "one two three");
  CHECK(directory.entries() == 2);
  ::close(standing);

  const int reading = ::open(directory.write("input", "input").c_str(), O_RDONLY);
  REQUIRE(reading >= 0);
  const std::string unwritable = "/dev/fd/" + std::to_string(reading);
  for (int closed = 0; closed < 2; ++closed) {
    const std::string message = error_of([&] { write_file_atomic(unwritable, "x"); });
    CAPTURE(message);
    CHECK(contains(message, unwritable));
    CHECK(contains(message, "Bad file descriptor"));
    ::close(reading);
  }
  CHECK(directory.read("input") == "input");
}

TEST_CASE("a pipe by its descriptor's name takes all that is written, also one that does not wait") {
  for (const int flags : {0, O_NONBLOCK}) {
    int ends[2];
    REQUIRE(::pipe2(ends, flags) == 0);
    REQUIRE(::fcntl(ends[0], F_SETFL, 0) == 0);
    const std::string sent(1 << 20, 's');
    std::string received;
    std::thread reader([&] { received = read_file("/dev/fd/" + std::to_string(ends[0])); });
    const std::string error =
        error_of([&] { write_file_atomic("/dev/fd/" + std::to_string(ends[1]), sent); });
    ::close(ends[1]);
    reader.join();
    ::close(ends[0]);
    CHECK(error == "");
    CHECK((received == sent));
  }
}

TEST_CASE("what another process has open is appended to") {
  const ScratchDirectory directory;
  const std::string path = directory.write("log", "before\n");
  int ready[2];
  REQUIRE(::pipe(ready) == 0);
  const pid_t child = ::fork();
  REQUIRE(child >= 0);
  if (child == 0) {
    ::dup2(::open(path.c_str(), O_WRONLY), STDOUT_FILENO);
    const char byte = 1;
    if (::write(ready[1], &byte, 1) == 1) ::pause();
    ::_exit(0);
  }
  char byte = 0;
  REQUIRE(::read(ready[0], &byte, 1) == 1);
  write_file_atomic("/proc/" + std::to_string(child) + "/fd/1", "more\n");
  ::kill(child, SIGKILL);
  ::waitpid(child, nullptr, 0);
  ::close(ready[0]);
  ::close(ready[1]);
  CHECK(directory.read("log") == "before\nmore\n");
  CHECK(directory.entries() == 1);
}

TEST_CASE("a file that is in place but whose directory cannot be synced is said to be so") {
  const ScratchDirectory directory;
  directory.write("file", "old");
  AtomicFile file(directory / "file");
  file.write("new");
  rlimit before{};
  REQUIRE(::getrlimit(RLIMIT_NOFILE, &before) == 0);
  rlimit none = before;
  none.rlim_cur = 0;
  REQUIRE(::setrlimit(RLIMIT_NOFILE, &none) == 0);  // now the directory cannot be opened
  const std::string message = error_of([&] { file.commit(); });
  ::setrlimit(RLIMIT_NOFILE, &before);
  CAPTURE(message);
  CHECK(contains(message, directory / "file has its new content"));
  CHECK(contains(message, "Too many open files"));
  CHECK(directory.read("file") == "new");
  CHECK(directory.entries() == 1);
}

TEST_CASE("lines are appended whole") {
  const ScratchDirectory directory;
  const std::string path = directory / "log";
  append_line_synced(path, "first");
  append_line_synced(path, "");
  append_line_synced(path, "third");
  CHECK(directory.read("log") == "first\n\nthird\n");
  CHECK(contains(error_of([&] { append_line_synced(path, "two\nlines"); }), path));
  CHECK(directory.read("log") == "first\n\nthird\n");

  SUBCASE("a full disk leaves the lines before") {
    std::string message;
    {
      const FileSizeLimit limit(20);
      message = error_of([&] { append_line_synced(path, "a line that does not fit"); });
    }
    CHECK(contains(message, path));
    CHECK(contains(message, "File too large"));
    CHECK(directory.read("log") == "first\n\nthird\n");
  }
  SUBCASE("a torn line stays apart") {
    directory.write("log", "first\ntor");
    append_line_synced(path, "next");
    CHECK(directory.read("log") == "first\ntor\nnext\n");
  }
}

TEST_CASE("directories are made with those above them") {
  const ScratchDirectory directory;
  make_directories(directory / "a/b/c");
  CHECK(std::filesystem::is_directory(directory.path() / "a/b/c"));
  make_directories(directory / "a/b/c");
  make_directories(directory / "a/b/d/");
  CHECK(std::filesystem::is_directory(directory.path() / "a/b/d"));
  directory.write("file", "x");
  for (const char* name : {"file", "file/below", "file/below/it"}) {
    const std::string message = error_of([&] { make_directories(directory / name); });
    CAPTURE(message);
    CHECK(contains(message, directory / name));
    CHECK(contains(message, "Not a directory"));
  }
  CHECK(directory.read("file") == "x");
}

namespace {

std::atomic<int> alarms = 0;  // libraries may have threads of their own, which take signals too

}  // namespace

TEST_CASE("partial writes and interrupted calls lose nothing") {
  const ScratchDirectory directory;
  const std::string path = directory / "pipe";
  REQUIRE(::mkfifo(path.c_str(), 0600) == 0);
  std::string sent(8 << 20, '\0');
  for (std::size_t i = 0; i < sent.size(); ++i) sent[i] = static_cast<char>(i * i >> 5);

  struct sigaction action {};
  struct sigaction before {};
  action.sa_handler = [](int) { ++alarms; };
  REQUIRE(::sigaction(SIGALRM, &action, &before) == 0);
  const itimerval often{{0, 200}, {0, 200}};
  REQUIRE(::setitimer(ITIMER_REAL, &often, nullptr) == 0);
  std::string received;
  std::string error;
  std::thread reader([&] { error = error_of([&] { received = read_file(path); }); });
  const std::string write_error = error_of([&] { write_file_atomic(path, sent); });
  reader.join();
  const itimerval never{};
  ::setitimer(ITIMER_REAL, &never, nullptr);
  ::sigaction(SIGALRM, &before, nullptr);
  CHECK(write_error == "");
  CHECK(error == "");
  CHECK(alarms > 0);
  CHECK((received == sent));
  CHECK(std::filesystem::is_fifo(path));
}

TEST_CASE("a lock keeps others out until it is gone, also by its process's death") {
  const ScratchDirectory directory;
  const std::string path = directory / "lock";
  {
    const FileLock held(path);
    CHECK_FALSE(FileLock::try_lock(path).has_value());
  }
  CHECK(FileLock::try_lock(path).has_value());

  int ready[2];
  REQUIRE(::pipe(ready) == 0);
  const pid_t child = ::fork();
  REQUIRE(child >= 0);
  if (child == 0) {
    const FileLock held(path);
    const char byte = 1;
    if (::write(ready[1], &byte, 1) == 1) ::pause();
    ::_exit(0);
  }
  char byte = 0;
  REQUIRE(::read(ready[0], &byte, 1) == 1);
  CHECK_FALSE(FileLock::try_lock(path).has_value());
  ::kill(child, SIGKILL);
  const FileLock waited(path);  // comes through as soon as the child is gone
  ::waitpid(child, nullptr, 0);
  ::close(ready[0]);
  ::close(ready[1]);
  CHECK(contains(error_of([&] { FileLock(directory / "nowhere/lock"); }), directory / "nowhere/lock"));
}
