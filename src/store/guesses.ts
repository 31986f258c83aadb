/**
 * The lock against guessing, of this node alone: after some wrong attempts for one name from one
 * client network the next must wait, longer each time.
 */
import { isIPv6 } from 'node:net'
import type { Clock } from '../base/clock.ts'
import { RefusalError } from '../base/errors.ts'

const WRONG_FREE = 5
const LOCK_FIRST_MS = 30_000
const LOCK_LONGEST_MS = 900_000
/** Pairs of name and network that are remembered; the longest unused goes. */
const LOCKS_MAX = 10_000
/** A pair is forgotten when nothing wrong came for this long. */
const LOCK_FORGET_MS = 3_600_000

type Lock = { wrong: number; untilMs: number; lastMs: number }

export class Guesses {
  readonly #clock: Clock
  /** By name and client network, the longest unused first. */
  readonly #locks = new Map<string, Lock>()

  constructor(clock: Clock) {
    this.#clock = clock
  }

  /** @throws RefusalError locked, with the time to wait */
  refuse(name: string, clientIp: string): void {
    const key = lockKey(name, clientIp)
    const lock = this.#locks.get(key)
    const waitMs = lock === undefined ? 0 : lock.untilMs - this.#clock.monoMs()
    if (waitMs <= 0) return
    throw new RefusalError(
      'locked',
      null,
      'There were too many wrong attempts.',
      `Wait ${inWords(waitMs)}, then try again.`,
    )
  }

  wrong(name: string, clientIp: string): void {
    const key = lockKey(name, clientIp)
    const nowMs = this.#clock.monoMs()
    const before = this.#locks.get(key)
    const wrong =
      before === undefined || nowMs - before.lastMs > LOCK_FORGET_MS ? 1 : before.wrong + 1
    const waitMs =
      wrong < WRONG_FREE
        ? 0
        : Math.min(LOCK_FIRST_MS * 2 ** Math.min(wrong - WRONG_FREE, 10), LOCK_LONGEST_MS)
    // Deleted first: a map keeps the order of insertion, so its first is the longest unused.
    this.#locks.delete(key)
    this.#locks.set(key, { wrong, untilMs: nowMs + waitMs, lastMs: nowMs })
    if (this.#locks.size <= LOCKS_MAX) return
    for (const oldest of this.#locks.keys()) {
      this.#locks.delete(oldest)
      return
    }
  }

  right(name: string, clientIp: string): void {
    this.#locks.delete(lockKey(name, clientIp))
  }
}

/** One name from one client network (/32, /64). */
function lockKey(name: string, clientIp: string): string {
  const network = isIPv6(clientIp) ? expand(clientIp).slice(0, 4).join(':') : clientIp
  return `${name} ${network}`
}

/** The eight groups of an IPv6 address. */
function expand(address: string): readonly string[] {
  const [head = '', tail] = (address.split('%')[0] ?? '').split('::')
  const first = head === '' ? [] : head.split(':')
  const last = tail === undefined || tail === '' ? [] : tail.split(':')
  const zeros = tail === undefined ? 0 : Math.max(0, 8 - first.length - last.length)
  return [...first, ...Array<string>(zeros).fill('0'), ...last].map((group) =>
    group.replace(/^0+(?=.)/, ''),
  )
}

function inWords(waitMs: number): string {
  const seconds = Math.ceil(waitMs / 1_000)
  return seconds < 120 ? `${seconds} s` : `${Math.ceil(seconds / 60)} min`
}
