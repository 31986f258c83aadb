/** Passwords of operators: which are good, their hashes, and how many are computed at a time. */
import { createHash } from 'node:crypto'
import { RefusalError } from '../base/errors.ts'
import { type Random, randomToken } from '../base/random.ts'

const PASSWORD_CHARACTERS_MIN = 8
const PASSWORD_BYTES_MAX = 1_024
/**
 * One of OWASP's equal choices for argon2id, the one with the least memory: what a hash takes
 * stays with the process, and the main process has a budget.
 */
const HASHING = { algorithm: 'argon2id', memoryCost: 7_168, timeCost: 5 } as const
/** Hashes computed at a time, and those that may wait: each costs 7 MB and 20 ms of a core. */
const HASHES_AT_ONCE = 2
const HASHES_WAITING_MAX = 50

export class Passwords {
  readonly #random: Random
  #hashing = 0
  readonly #hashQueue: (() => void)[] = []
  #decoy: Promise<string> | null = null

  constructor(random: Random) {
    this.#random = random
  }

  /** @throws RefusalError unavailable */
  async hash(password: string): Promise<string> {
    return this.#inTurn(() => Bun.password.hash(password, HASHING))
  }

  /** `hash` null: false, at the same cost. @throws RefusalError unavailable */
  async verify(password: string, hash: string | null): Promise<boolean> {
    if (Buffer.byteLength(password) > PASSWORD_BYTES_MAX) return false
    return this.#inTurn(async () => {
      if (hash !== null) return Bun.password.verify(password, hash)
      this.#decoy ??= Bun.password.hash(randomToken(this.#random, 16), HASHING)
      await Bun.password.verify(password, await this.#decoy)
      return false
    })
  }

  async #inTurn<Result>(act: () => Promise<Result>): Promise<Result> {
    if (this.#hashing >= HASHES_AT_ONCE) {
      if (this.#hashQueue.length >= HASHES_WAITING_MAX) {
        throw new RefusalError(
          'unavailable',
          null,
          'Too many sign-ins arrive at this moment.',
          'Try again in a few seconds.',
        )
      }
      await new Promise<void>((resolve) => this.#hashQueue.push(resolve))
    } else this.#hashing += 1
    try {
      return await act()
    } finally {
      const next = this.#hashQueue.shift()
      if (next === undefined) this.#hashing -= 1
      else next()
    }
  }
}

/** @throws RefusalError invalid, field `password` */
export function checkPassword(password: string, name: string): void {
  const refuse = (message: string, advice: string): never => {
    throw new RefusalError('invalid', 'password', message, advice)
  }
  if (password.length < PASSWORD_CHARACTERS_MIN) {
    refuse('The password is too short.', `Use at least ${PASSWORD_CHARACTERS_MIN} characters.`)
  }
  if (Buffer.byteLength(password) > PASSWORD_BYTES_MAX) {
    refuse('The password is too long.', `Use at most ${PASSWORD_BYTES_MAX} bytes.`)
  }
  if (password.toLowerCase() === name)
    refuse('The password is the name.', 'Choose another password.')
}

/** Tells two passwords apart, also equal ones set twice: their hashes are salted. */
export function fingerprint(passwordHash: string): string {
  return createHash('sha256').update(passwordHash).digest('base64url').slice(0, 16)
}
