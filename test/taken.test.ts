/** Who has durably what this node wrote: a claim waits for it, and for nobody for ever. */
import { expect, test } from 'bun:test'
import { RefusalError } from '../src/base/errors.ts'
import { newNodeId } from '../src/base/ids.ts'
import { SeededRandom } from '../src/base/random.ts'
import type { CallAnswer, Calls } from '../src/cluster/contract.ts'
import { Taken, type TakenOptions } from '../src/cluster/taken.ts'
import { ManualClock } from './clock.ts'
import { settled } from './posts.ts'

const NODE = newNodeId(new SeededRandom(2))
const away = new RefusalError('unavailable', null, 'It does not answer.', 'Wait.')

/** This node has written up to 7; a peer answers as a test says. */
function world() {
  const clock = new ManualClock()
  const state = {
    answer: (): unknown => {
      throw away
    },
    asked: [] as unknown[],
    standing: 'member',
    heardMono: 0,
    acked: 0,
    theirs: 0,
  }
  let act: ((value: unknown) => Promise<CallAnswer>) | null = null
  const calls = {
    answer: (_: string, run: typeof act) => {
      act = run
    },
    ask: async (_: unknown, __: unknown, value: unknown) => {
      state.asked.push(value)
      return await state.answer()
    },
  } as unknown as Calls
  const taken = new Taken({
    clock,
    calls,
    patienceMs: 60_000,
    roster: { get: () => ({ standing: state.standing }) },
    sync: {
      point: () => ({ writer: 'me', seq: 7 }),
      hasTaken: () => state.acked >= 7,
      vector: () =>
        new Map([
          ['me', 7],
          ['them', state.theirs],
        ]),
      peer: () => ({ heardMono: state.heardMono }),
    },
  } as unknown as TakenOptions)
  let isOver = false
  const begin = () => void taken.by([NODE]).then(() => (isOver = true))
  return { clock, state, begin, isOver: () => isOver, answers: (value: unknown) => act?.(value) }
}

test('an acknowledgement ends the wait, asked for or come by itself', async () => {
  const asked = world()
  asked.state.answer = () => ({ has: true, writer: 'them', seq: 0 })
  asked.begin()
  await settled()
  expect(asked.isOver()).toBeTrue()
  const heard = world()
  heard.begin()
  await settled()
  expect(heard.isOver()).toBeFalse()
  heard.state.acked = 7
  heard.clock.advance(500)
  await settled()
  expect(heard.isOver()).toBeTrue()
})

test('what the other one wrote itself must be here first: it may have taken over', async () => {
  const { clock, state, begin, isOver } = world()
  state.answer = () => ({ has: true, writer: 'them', seq: 3 })
  begin()
  await settled()
  expect(isOver()).toBeFalse()
  state.theirs = 3
  clock.advance(500)
  await settled()
  expect(isOver()).toBeTrue()
})

test('who does not acknowledge is waited for until it was silent for a minute, and not longer', async () => {
  const { clock, state, begin, isOver } = world()
  state.heardMono = clock.monoMs()
  clock.advance(20_000)
  begin()
  for (let seconds = 0; seconds < 39; seconds++) {
    clock.advance(1_000)
    await settled()
  }
  expect(isOver()).toBeFalse()
  clock.advance(1_500)
  await settled()
  expect(isOver()).toBeTrue()
})

test('who speaks and does not acknowledge is waited for a minute; who was removed, not at all', async () => {
  const { clock, state, begin, isOver } = world()
  begin()
  for (let seconds = 0; seconds < 59; seconds++) {
    clock.advance(1_000)
    state.heardMono = clock.monoMs()
    await settled()
  }
  expect(isOver()).toBeFalse()
  clock.advance(1_500)
  state.heardMono = clock.monoMs()
  await settled()
  expect(isOver()).toBeTrue()
  const removed = world()
  removed.state.standing = 'evicted'
  removed.begin()
  await settled()
  expect(removed.isOver()).toBeTrue()
  expect(removed.state.asked).toEqual([])
})

test('a hundred claims of one moment are one question', async () => {
  const { state, begin } = world()
  state.answer = () => ({ has: true, writer: 'them', seq: 0 })
  for (let count = 0; count < 100; count++) begin()
  await settled()
  expect(state.asked).toEqual([{ writer: 'me', seq: 7 }])
})

test('a question is answered by what is durable here, and checked', async () => {
  const { answers } = world()
  expect((await answers({ writer: 'me', seq: 7 }))?.value).toMatchObject({ has: true })
  expect((await answers({ writer: 'me', seq: 8 }))?.value).toMatchObject({ has: false })
  expect((await answers({ writer: 'other', seq: 1 }))?.value).toMatchObject({ has: false })
  for (const bad of [null, {}, { writer: 7, seq: 1 }, { writer: 'x', seq: 1.5 }]) {
    expect(answers(bad)).rejects.toBeInstanceOf(RefusalError)
  }
})
