"""A manager of multiprocessing over TCP, and workers that call it.

Arguments: serve ADDRESS PORT, or call ADDRESS PORT METHOD (fork, spawn, forkserver)."""
import multiprocessing
import multiprocessing.managers
import signal
import sys
import threading

ADDRESS = sys.argv[2], int(sys.argv[3])


class Sum:
    def __init__(self):
        self.value = 0
        self.lock = threading.Lock()

    def add(self, number):
        with self.lock:
            self.value += number

    def total(self):
        return self.value


the_sum = Sum()


class Manager(multiprocessing.managers.BaseManager):
    pass


Manager.register("sum", callable=lambda: the_sum, exposed=("add", "total"))


def worker(numbers):
    manager = Manager(ADDRESS, authkey=b"key")
    manager.connect()
    proxy = manager.sum()
    for number in numbers:
        proxy.add(number)


def main():
    if sys.argv[1] == "serve":
        signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
        Manager(ADDRESS, authkey=b"key").get_server().serve_forever()
    multiprocessing.set_start_method(sys.argv[4])
    manager = Manager(ADDRESS, authkey=b"key")
    manager.connect()  # a connection that the workers inherit, or not
    proxy = manager.sum()
    workers = [multiprocessing.Process(target=worker, args=(range(i, 100, 4),)) for i in range(4)]
    for one in workers:
        one.start()
    for one in workers:
        one.join()
        assert one.exitcode == 0, one.exitcode
    print("total", proxy.total())


if __name__ == "__main__":
    main()
