/** Keeps the memory of passing traffic bounded: the collector does not see it as pressure. */

/**
 * Bytes taken from sockets after which garbage is collected. The engine counts a received block as
 * a small object, so without this 100 senders of 1 MB grow the process by 200 MB (with it by 95);
 * one collection costs about 5 ms.
 */
const COLLECT_EVERY_BYTES = 16 * 1024 * 1024

export class TrafficMemory {
  #bytes = 0

  /** Call with the size of every block that came from a socket. */
  took(bytes: number): void {
    this.#bytes += bytes
    if (this.#bytes < COLLECT_EVERY_BYTES) return
    this.#bytes = 0
    Bun.gc(true)
  }
}
