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
  )
  const begun = clock.monoMs()
  for (const [name, ms] of Object.entries({ c: 500, b: 50, d: 500, a: 10, e: 700 }))
    table.add({ name, dueMono: begun + ms })
  for (let ms = 0; ms < 1_000; ms += 10) clock.advance(10)
  expect(done.toSorted()).toEqual(['a 10', 'again 60', 'b 50', 'c 500', 'd 500', 'e 700'])
})
