/** What is to be done later is done in the order in which it is due. */
import { expect, test } from 'bun:test'
import { Timetable } from '../src/mail/queue/timetable.ts'
import { ManualClock } from './clock.ts'

test('each entry is due once, at its time, in whatever order they come', () => {
  const clock = new ManualClock()
  const done: string[] = []
  const table = new Timetable<{ readonly name: string; readonly dueMono: number }>(
    clock,
    ({ name }) => {
      done.push(`${name} ${clock.monoMs() - begun}`)
      if (name === 'b') table.add({ name: 'again', dueMono: begun + 60 })
    },
    () => false,
  )
  const begun = clock.monoMs()
  for (const [name, ms] of Object.entries({ c: 500, b: 50, d: 500, a: 10, e: 700 }))
    table.add({ name, dueMono: begun + ms })
  for (let ms = 0; ms < 1_000; ms += 10) clock.advance(10)
  expect(done.toSorted()).toEqual(['a 10', 'again 60', 'b 50', 'c 500', 'd 500', 'e 700'])
})

test('what is void goes before it is due, and the rest is due in its order', () => {
  const clock = new ManualClock()
  const begun = clock.monoMs()
  const [asked, done]: [Set<number>, number[]] = [new Set(), []]
  type Entry = { readonly at: number; readonly dueMono: number }
  const isVoid = ({ at }: Entry): boolean => {
    asked.add(at)
    return at % 4 !== 0
  }
  const table = new Timetable<Entry>(clock, ({ at }) => done.push(at), isVoid)
  const entries = Array.from({ length: 4_000 }, (_, at) => (at * 1_237) % 4_000)
  for (const at of entries) table.add({ at, dueMono: begun + at })
  table.voided(999)
  expect(asked.size).toBe(0)
  table.voided(2_001)
  expect(asked.size).toBe(4_000)
  clock.advance(5_000)
  expect(done).toEqual(Array.from({ length: 1_000 }, (_, index) => index * 4))
})
