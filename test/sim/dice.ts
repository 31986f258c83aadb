/**
 * Chance of a simulation: a seed, and streams split off it by name, so that one more draw in one
 * place moves nothing in another. Not for keys or tokens outside a test.
 */
import { type Random, shuffled } from '../../src/base/random.ts'

/** sfc32 (Doty-Humphrey, PractRand), seeded from a name by FNV-1a and splitmix32. */
export class Dice implements Random {
  readonly #root: number
  readonly #name: string
  #a: number
  #b: number
  #c: number
  #count = 1

  constructor(seed: number, name = '') {
    this.#root = seed
    this.#name = name
    let word = (seed ^ hashText(name)) >>> 0
    const next = (): number => {
      word = (word + 0x9e37_79b9) >>> 0
      let mixed = word ^ (word >>> 16)
      mixed = Math.imul(mixed, 0x21f0_aaad)
      mixed ^= mixed >>> 15
      mixed = Math.imul(mixed, 0x735a_2d97)
      return (mixed ^ (mixed >>> 15)) >>> 0
    }
    this.#a = next()
    this.#b = next()
    this.#c = next()
    for (let turn = 0; turn < 12; turn += 1) this.#word()
  }

  /** A stream of its own; the same name gives the same stream, whatever was drawn here. */
  split(name: string): Dice {
    return new Dice(this.#root, `${this.#name}/${name}`)
  }

  /** What a cloned machine has: the same numbers will come. */
  clone(): Dice {
    const twin = new Dice(this.#root, this.#name)
    twin.#a = this.#a
    twin.#b = this.#b
    twin.#c = this.#c
    twin.#count = this.#count
    return twin
  }

  below(bound: number): number {
    return Math.floor((this.#word() / 0x1_0000_0000) * bound)
  }

  bytes(length: number): Uint8Array {
    const bytes = new Uint8Array(length)
    for (let at = 0; at < length; at += 4) {
      const word = this.#word()
      for (let byte = 0; byte < 4 && at + byte < length; byte += 1) {
        bytes[at + byte] = (word >>> (8 * byte)) & 0xff
      }
    }
    return bytes
  }

  /** True with probability `part`, 0..1. */
  chance(part: number): boolean {
    return this.#word() < part * 0x1_0000_0000
  }

  /** Uniform in [least, most), not rounded. */
  between(least: number, most: number): number {
    return least + (this.#word() / 0x1_0000_0000) * (most - least)
  }

  /** Exponential with this mean. */
  exponential(mean: number): number {
    return -Math.log(1 - this.#word() / 0x1_0000_0000) * mean
  }

  pick<Item>(items: readonly Item[]): Item {
    const item = items[this.below(items.length)]
    if (item === undefined) throw new Error('nothing to pick from')
    return item
  }

  shuffle<Item>(items: readonly Item[]): Item[] {
    return shuffled(items, this)
  }

  #word(): number {
    const sum = (this.#a + this.#b + this.#count) >>> 0
    this.#count = (this.#count + 1) >>> 0
    this.#a = (this.#b ^ (this.#b >>> 9)) >>> 0
    this.#b = (this.#c + (this.#c << 3)) >>> 0
    this.#c = (((this.#c << 21) | (this.#c >>> 11)) + sum) >>> 0
    return sum
  }
}

/** FNV-1a, 32 bits. */
export function hashText(text: string, before = 0x811c_9dc5): number {
  let hash = before
  for (let at = 0; at < text.length; at += 1) {
    hash = Math.imul(hash ^ text.charCodeAt(at), 0x0100_0193)
  }
  return hash >>> 0
}
