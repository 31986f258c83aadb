/**
 * Sums over the hashes of rows, kept in step with every change: two nodes compare one number, then
 * 256, then the rows of the leaves that differ. Tombstones do not count: one node has collected
 * them already and another not.
 */
import { createHash } from 'node:crypto'
import type { Digest } from './feed.ts'

export const LEAVES = 256
const DAY_MS = 86_400_000
const MODULUS = 2 ** 48
const FOR_EVER = Number.POSITIVE_INFINITY

export class DigestSums {
  /** By the day on which rows may be forgotten, so that a day's end takes them out everywhere. */
  readonly #days = new Map<number, Float64Array>()

  add(kind: string, key: string, hash: number, untilMs: number | null): void {
    this.#change(kind, key, hash, untilMs)
  }

  remove(kind: string, key: string, hash: number, untilMs: number | null): void {
    this.#change(kind, key, MODULUS - hash, untilMs)
  }

  /** Without the rows that may be forgotten today or could be before. */
  digest(nowMs: number): Digest {
    const sums = new Float64Array(LEAVES)
    for (const [day, part] of this.#days) {
      if (day <= dayOf(nowMs)) continue
      for (let leaf = 0; leaf < LEAVES; leaf += 1) {
        sums[leaf] = ((sums[leaf] ?? 0) + (part[leaf] ?? 0)) % MODULUS
      }
    }
    const leaves = Array.from(sums, (sum) => sum.toString(16))
    const root = createHash('sha256').update(leaves.join(' ')).digest('hex').slice(0, 12)
    return { root, leaves }
  }

  #change(kind: string, key: string, by: number, untilMs: number | null): void {
    const day = untilMs === null ? FOR_EVER : dayOf(untilMs)
    const part = this.#days.get(day) ?? new Float64Array(LEAVES)
    this.#days.set(day, part)
    const leaf = leafOf(kind, key)
    part[leaf] = ((part[leaf] ?? 0) + by) % MODULUS
  }
}

/** Whether a row counts in a digest made at `nowMs`. */
export function isCounted(untilMs: number | null, nowMs: number): boolean {
  return untilMs === null || dayOf(untilMs) > dayOf(nowMs)
}

/** FNV-1a over the name, one byte of it: the same on every node, and cheap. */
export function leafOf(kind: string, key: string): number {
  let hash = 0x811c_9dc5
  const name = `${kind}/${key}`
  for (let place = 0; place < name.length; place += 1) {
    hash = Math.imul(hash ^ name.charCodeAt(place), 0x0100_0193)
  }
  return (hash ^ (hash >>> 16)) & (LEAVES - 1)
}

/** 48 bits, below 2^48. */
export function hashOfRow(kind: string, key: string, state: string): number {
  const hash = createHash('sha256').update(`${kind}\0${key}\0${state}`).digest()
  return hash.readUIntBE(0, 6)
}

function dayOf(wallMs: number): number {
  return Math.floor(wallMs / DAY_MS)
}
