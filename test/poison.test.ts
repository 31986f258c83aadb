/** A mail that ends whatever looks into it: how often it is asked for again, and where it goes then (L13). */
import { expect, test } from 'bun:test'
import { Observer } from '../src/base/observe.ts'
import { decide } from '../src/mail/decide/decide.ts'
import type { InspectionJob, Inspectors } from '../src/mail/inspect/contract.ts'
import { withPoison } from '../src/mail/inspect/poison.ts'
import { type Inspection, NO_FACTS } from '../src/message/verdict.ts'
import { ManualClock } from './clock.ts'

const DAY_MS = 86_400_000
const POLICY = { tag: 6, hold: 8, reject: 15, enforce: true }

function room() {
  const clock = new ManualClock()
  const observer = new Observer(clock, () => {})
  const looked: (string | null)[] = []
  const inspect = ({ sha256 }: InspectionJob): Promise<Inspection> => {
    looked.push(sha256)
    const unknowns = [{ inspector: 'text', cause: 'the inspector process ended twice' }]
    return Promise.resolve(
      sha256 === 'good'
        ? { findings: [], unknowns: [], facts: NO_FACTS }
        : {
            findings: [],
            unknowns,
            facts: NO_FACTS,
            ...(sha256 === 'slow' ? {} : { ended: true }),
          },
    )
  }
  const inspectors = withPoison({ inspect } as unknown as Inspectors, { clock, observer })
  const come = async (sha256: string | null): Promise<Inspection> =>
    await inspectors.inspect({
      envelope: { id: '1' },
      inspectors: ['text', 'links'],
      sha256,
    } as unknown as InspectionJob)
  const kind = async (sha256: string | null): Promise<string> =>
    decide(await come(sha256), POLICY as never, null).kind
  return { clock, observer, looked, come, kind }
}

test('it is asked for twice, then held with the reason, while others pass', async () => {
  const { clock, kind, come, observer } = room()
  for (const expected of ['defer', 'defer', 'hold']) {
    expect(await kind('bad')).toBe(expected)
    expect(await kind('good')).toBe('deliver')
    clock.advance(DAY_MS)
  }
  const { findings, unknowns } = await come('bad')
  expect(findings).toEqual([
    {
      rule: 'INSPECTOR_ENDED',
      score: 0,
      evidence:
        'To look into it ended the inspector 4 times: it is held for a person, and nobody is asked to send it again.',
    },
  ])
  expect(unknowns).toMatchObject([{ inspector: 'text', outage: 'hold' }])
  expect(observer.count('inspect_ended_total')).toBe(4)
})

test('many that send the same at once end no more processes; later it is looked into again', async () => {
  const { clock, kind, looked } = room()
  for (let times = 0; times < 3; times += 1) await kind('bad')
  expect(looked.length).toBe(3)
  for (let times = 0; times < 50; times += 1) expect(await kind('bad')).toBe('hold')
  expect(looked.length).toBe(3)
  clock.advance(600_000)
  expect(await kind('bad')).toBe('hold')
  expect(looked.length).toBe(4)
})

test('who is only unknown, by a slow engine say, or without a hash, is never held for it', async () => {
  const { kind } = room()
  for (let times = 0; times < 10; times += 1) {
    expect(await kind('slow')).toBe('defer')
    expect(await kind(null)).toBe('defer')
  }
})

test('who stays away for longer than senders try begins anew', async () => {
  const { clock, kind } = room()
  await kind('bad')
  await kind('bad')
  clock.advance(6 * DAY_MS)
  expect(await kind('bad')).toBe('defer')
})
