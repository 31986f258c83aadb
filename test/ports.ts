/** Ports of 127.0.0.1 that a test gives to somebody who cannot choose one by himself. */

/** Below what the system gives out by itself (32768 to 60999 on Linux): no connection takes one. */
const FIRST = 10_240
const LAST = 32_767

const given = new Set<number>()

/** A port that nobody listens on at this moment, and that this process has not given before. */
export function freePort(): number {
  for (;;) {
    const port = FIRST + Math.floor(Math.random() * (LAST - FIRST + 1))
    if (given.has(port)) continue
    given.add(port)
    if (isFree(port)) return port
  }
}

function isFree(port: number): boolean {
  try {
    Bun.listen({ hostname: '127.0.0.1', port, socket: { data() {} } }).stop(true)
    return true
  } catch {
    return false
  }
}
