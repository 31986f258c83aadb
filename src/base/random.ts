/** Chance as a dependency: the system source, and a seeded one that replays. */

export interface Random {
  /** Uniform integer in [0, bound). `bound` is in 1..2^32. */
  below(bound: number): number
  /** `length` random bytes. */
  bytes(length: number): Uint8Array
}

export class SystemRandom implements Random {
  below(bound: number): number {
    const word = crypto.getRandomValues(new Uint32Array(1))[0] ?? 0
    return Math.floor((word / 0x1_0000_0000) * bound)
  }

  bytes(length: number): Uint8Array {
    return crypto.getRandomValues(new Uint8Array(length))
  }
}

/** xorshift32. Not for keys or tokens: only for simulation and tests. */
export class SeededRandom implements Random {
  #word: number

  constructor(seed: number) {
    this.#word = (seed ^ 0x9e37_79b9) >>> 0 || 1
  }

  below(bound: number): number {
    this.#word ^= this.#word << 13
    this.#word ^= this.#word >>> 17
    this.#word ^= this.#word << 5
    return (this.#word >>> 0) % bound
  }

  bytes(length: number): Uint8Array {
    return Uint8Array.from({ length }, () => this.below(256))
  }
}

/** `length` random bytes as lowercase hex, 2 * `length` characters. */
export function randomHex(random: Random, length: number): string {
  return Buffer.from(random.bytes(length)).toString('hex')
}

/** `length` random bytes as base64url without padding: for tokens that a person copies. */
export function randomToken(random: Random, length: number): string {
  return Buffer.from(random.bytes(length)).toString('base64url')
}

/** The same in another order, each as likely as the other (Fisher and Yates). */
export function shuffled<Item>(items: readonly Item[], random: Random): Item[] {
  const mixed = [...items]
  for (let at = mixed.length - 1; at > 0; at -= 1) {
    const other = random.below(at + 1)
    const held = mixed[at] as Item
    mixed[at] = mixed[other] as Item
    mixed[other] = held
  }
  return mixed
}
