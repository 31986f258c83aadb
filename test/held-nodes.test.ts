/** What held mail knows of the other nodes. */
import { expect, test } from 'bun:test'
import { heldNodes } from '../src/admin/held-nodes.ts'
import type { NodeId } from '../src/base/ids.ts'
import { readHeldValue } from '../src/store/held-row.ts'

const OTHER = '00000000000000bb' as NodeId

test('times of a node that is gone are whole ms: a row that names one can be read', () => {
  const refused = { silentMs: 20_000.2, contactBoot: 1.1, refusedMs: 16_000.7, refusedBoot: 5.3 }
  const nodes = heldNodes({
    clock: { wallMs: () => 1_000_000, monoMs: () => 40_000.25, bootMs: () => 40_000.75 },
    cluster: {
      calls: {},
      roster: { get: () => ({ standing: 'member', drain: 'accepting' }) },
      members: { get: () => ({ life: 'dead' }) },
      sync: { peer: () => ({ heardMono: 7.125 }) },
      heardMs: () => null,
    },
    absences: { of: () => ({ kind: 'confirmed', why: 'refused', ...refused }) },
    candidates: { all: () => [] },
    taken: { by: () => Promise.resolve() },
    patience: { drainedMs: 600_000 },
  } as unknown as Parameters<typeof heldNodes>[0])
  const { standing, refusedSinceMs, lastContactMs } = nodes.absence(OTHER)
  expect({ standing, refusedSinceMs, lastContactMs }).toEqual({
    standing: 'confirmed',
    refusedSinceMs: 960_005,
    lastContactMs: 960_007,
  })
  const value = { owner: OTHER, copies: [], doubtMs: lastContactMs, doubtOf: OTHER }
  expect(readHeldValue(JSON.stringify(value))).not.toBeNull()
})
