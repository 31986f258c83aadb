/** The laws of merging: a join, whatever was lost, doubled or turned around on the way. */
import { describe, expect, test } from 'bun:test'
import * as fc from 'fast-check'
import {
  type Cell,
  canonicalText,
  covers,
  dotsOf,
  EMPTY_VECTOR,
  isKnown,
  joinVectors,
  meetVectors,
  mergeStates,
  type OwnedRow,
  type SharedState,
  writeCell,
} from '../src/config/merge.ts'

const WRITERS = ['00000000000a', '00000000000b', '00000000000c']

/** Small ranges, so that ties happen. */
type Step =
  | {
      readonly kind: 'write'
      readonly at: number
      readonly value: string | null
      readonly blind: boolean
    }
  | { readonly kind: 'merge'; readonly at: number; readonly from: number }

const steps: fc.Arbitrary<readonly Step[]> = fc.array(
  fc.oneof(
    fc.record({
      kind: fc.constant('write' as const),
      at: fc.nat(2),
      value: fc.option(fc.constantFrom('1', '2'), { nil: null }),
      blind: fc.boolean(),
    }),
    fc.record({ kind: fc.constant('merge' as const), at: fc.nat(2), from: fc.nat(2) }),
  ),
  { maxLength: 12 },
)

/** Three places that write and merge one cell: the states that real runs can reach. */
function run(story: readonly Step[]): (Cell | null)[] {
  const cells: (Cell | null)[] = [null, null, null]
  const counts = [0, 0, 0]
  for (const step of story) {
    if (step.kind === 'write') {
      const seq = (counts[step.at] ?? 0) + 1
      counts[step.at] = seq
      const writer = WRITERS[step.at] ?? ''
      const head = { writer, seq, stamp: seq % 3, author: 'x', value: step.value }
      cells[step.at] = writeCell(cells[step.at] ?? null, head, step.blind ? EMPTY_VECTOR : null)
    } else {
      cells[step.at] = join(cells[step.at] ?? null, cells[step.from] ?? null)
    }
  }
  return cells
}

function join(a: Cell | null, b: Cell | null): Cell | null {
  if (a === null || b === null) return a ?? b
  return mergeStates(a, b) as Cell
}

const owned: fc.Arbitrary<OwnedRow> = fc.record({
  shape: fc.constant('owned' as const),
  version: fc.tuple(fc.nat(1), fc.nat(1)),
  writer: fc.constantFrom(...WRITERS),
  seq: fc.integer({ min: 1, max: 2 }),
  stamp: fc.nat(1),
  author: fc.constant('x'),
  value: fc.option(fc.constantFrom('1', '2'), { nil: null }),
  untilMs: fc.constant(null),
})

function holdsForThree(a: SharedState, b: SharedState, c: SharedState): void {
  const text = (state: SharedState): string => canonicalText(state)
  expect(text(mergeStates(a, b))).toBe(text(mergeStates(b, a)))
  expect(text(mergeStates(a, a))).toBe(text(a))
  expect(text(mergeStates(mergeStates(a, b), c))).toBe(text(mergeStates(a, mergeStates(b, c))))
}

describe('merging', () => {
  test('of cells that real runs reach is commutative, associative and idempotent', () => {
    fc.assert(
      fc.property(steps, (story) => {
        const [a, b, c] = run(story)
        if (a && b && c) holdsForThree(a, b, c)
      }),
      { numRuns: 20_000, seed: 3 },
    )
  })

  test('of two writes under one name (a cloned writer) chooses the same one everywhere', () => {
    const cell = (value: string, stamp: number) =>
      writeCell(null, { writer: WRITERS[0] ?? '', seq: 1, stamp, author: 'x', value }, null)
    for (const [a, b] of [
      [cell('1', 5), cell('2', 5)],
      [cell('1', 6), cell('2', 5)],
    ] as const) {
      holdsForThree(a, b, a)
      expect((mergeStates(a, b) as Cell).heads.length).toBe(1)
    }
  })

  test('of cells keeps fields of a later version, the same ones everywhere', () => {
    const cell = (value: string, later: object) => ({
      ...writeCell(null, { writer: WRITERS[0] ?? '', seq: 1, stamp: 5, author: 'x', value }, null),
      ...later,
    })
    const [a, b, c] = [cell('1', { x: 1 }), cell('1', { x: 2, y: {} }), cell('2', {})]
    holdsForThree(a, b, c)
    const merged = mergeStates(mergeStates(a, b), c) as Cell
    expect(merged).toMatchObject({ x: 2, y: {} })
    const head = { writer: WRITERS[1] ?? '', seq: 1, stamp: 6, author: 'x', value: '3' }
    expect(writeCell(merged, head, null)).toMatchObject({ x: 2, y: {} })
  })

  test('of owned rows is commutative, associative and idempotent', () => {
    fc.assert(fc.property(owned, owned, owned, holdsForThree), { numRuns: 20_000, seed: 4 })
  })

  test('drops exactly the writes that another write has seen', () => {
    fc.assert(
      fc.property(steps, (story) => {
        // The same story with what each write had seen: what survives must be the maximal writes.
        const seen: Set<string>[] = [new Set(), new Set(), new Set()]
        const dead = new Set<string>()
        const counts = [0, 0, 0]
        const heads: Set<string>[] = [new Set(), new Set(), new Set()]
        for (const step of story) {
          const known = seen[step.at] ?? new Set()
          if (step.kind === 'write') {
            counts[step.at] = (counts[step.at] ?? 0) + 1
            const name = `${WRITERS[step.at]} ${counts[step.at]}`
            if (!step.blind) for (const other of known) dead.add(other)
            known.add(name)
            heads[step.at]?.add(name)
          } else for (const name of seen[step.from] ?? []) known.add(name)
        }
        const all = run(story).reduce(join, null)
        const everything = new Set(seen.flatMap((names) => [...names]))
        const expected = [...everything].filter((name) => !dead.has(name)).sort()
        const found = (all?.heads ?? []).map(({ writer, seq }) => `${writer} ${seq}`).sort()
        expect(found).toEqual(expected)
      }),
      { numRuns: 20_000, seed: 5 },
    )
  })

  test('never forgets what a state has seen', () => {
    fc.assert(
      fc.property(steps, (story) => {
        const [a, b] = run(story)
        if (!a || !b) return
        const joined = mergeStates(a, b)
        const vector = new Map(dotsOf(joined))
        expect(isKnown(a, vector) && isKnown(b, vector)).toBe(true)
      }),
      { numRuns: 5_000, seed: 6 },
    )
  })

  test('of vectors joins and meets point by point', () => {
    const a = new Map([['w', 3]])
    const b = new Map([
      ['w', 1],
      ['v', 2],
    ])
    expect(joinVectors(a, b)).toEqual(
      new Map([
        ['w', 3],
        ['v', 2],
      ]),
    )
    expect(meetVectors(a, b)).toEqual(new Map([['w', 1]]))
    expect([covers(a, 'w', 3), covers(a, 'w', 4), covers(a, 'x', 0)]).toEqual([true, false, true])
  })

  test('writes equal text for equal content, whatever the order of the keys', () => {
    expect(canonicalText({ b: [1, { d: 1, c: 2 }], a: null })).toBe(
      canonicalText({ a: null, b: [1, { c: 2, d: 1 }] }),
    )
  })
})
