/** The scan of four octets at a time finds what a plain one finds, wherever a view begins. */
import { expect, test } from 'bun:test'
import { nextControl, wordsOf } from '../src/base/octets.ts'
import { SeededRandom } from '../src/base/random.ts'

function plainly(bytes: Uint8Array, from: number): number {
  const found = bytes.findIndex((octet, index) => index >= from && octet < 14)
  return found < 0 ? bytes.length : found
}

test('every octet alone is found when it is below 14, and only then, at every place of a word', () => {
  for (let octet = 0; octet < 256; octet += 1) {
    for (let place = 0; place < 9; place += 1) {
      const bytes = new Uint8Array(9).fill(0x80)
      bytes[place] = octet
      expect(nextControl(bytes, wordsOf(bytes), 0)).toBe(octet < 14 ? place : 9)
    }
  }
})

test('from every place of every view the next control octet is the one that a plain scan finds', () => {
  const random = new SeededRandom(11)
  const pick = (octets: readonly number[]): number => octets[random.below(octets.length)] ?? 0
  for (let round = 0; round < 2_000; round += 1) {
    const memory = Uint8Array.from({ length: 64 }, () => pick([14, 0x41, 0x7f, 0x80, 0x8d, 0xff]))
    for (let few = random.below(4); few > 0; few -= 1) {
      memory[random.below(64)] = pick([0, 1, 9, 10, 13])
    }
    const begin = random.below(20)
    const view = memory.subarray(begin, begin + random.below(44))
    const words = wordsOf(view)
    for (let from = 0; from <= view.length; from += 1) {
      expect(nextControl(view, words, from)).toBe(plainly(view, from))
    }
  }
})
