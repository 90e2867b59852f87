// SPDX-License-Identifier: Apache-2.0
// C++ in the guest: exceptions through deep frames in several threads, containers, atomics,
// futures.
#include <atomic>
#include <cstdint>
#include <cstdio>
#include <future>
#include <map>
#include <memory>
#include <mutex>
#include <stdexcept>
#include <string>
#include <thread>
#include <vector>

namespace
{
std::atomic<int> alive{0};

struct counted {
    counted()
    {
        alive++;
    }
    ~counted()
    {
        alive--;
    }
};

int throw_at(int depth, int number)
{
    counted guard;
    if (depth == 0)
        throw std::runtime_error("thrown " + std::to_string(number));
    return throw_at(depth - 1, number) + 1;
}

long catch_many(int thread)
{
    long caught = 0;
    std::map<std::string, int> seen;
    for (int i = 0; i < 300; i++) {
        try {
            throw_at(20 + i % 30, thread * 1000 + i);
        } catch (const std::runtime_error &error) {
            seen[error.what()]++;
            caught++;
        }
    }
    return caught + static_cast<long>(seen.size());
}
} // namespace

int main()
{
    std::vector<std::thread> threads;
    std::atomic<long> total{0};
    std::mutex lock;
    std::vector<std::unique_ptr<std::string>> strings;
    for (int i = 0; i < 6; i++)
        threads.emplace_back([&, i] {
            total += catch_many(i);
            std::lock_guard<std::mutex> guard(lock);
            for (int j = 0; j < 1000; j++)
                strings.push_back(std::make_unique<std::string>(100, static_cast<char>('a' + i)));
        });
    for (auto &thread : threads)
        thread.join();

    auto future = std::async(std::launch::async, []() -> int { throw std::logic_error("late"); });
    std::string late;
    try {
        future.get();
    } catch (const std::exception &error) {
        late = error.what();
    }
    std::size_t bytes = 0;
    for (auto &text : strings)
        bytes += text->size();
    std::printf("cxx_exceptions: total %ld alive %d bytes %zu late '%s'\n", total.load(),
                alive.load(), bytes, late.c_str());
    return total == 3600 && alive == 0 ? 0 : 1;
}
