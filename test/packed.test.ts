/** What rests in memory says the same as before, in less. */
import { expect, test } from 'bun:test'
import type { MessageId } from '../src/base/ids.ts'
import { shared } from '../src/base/memory.ts'
import { pack, unpack } from '../src/store/packed.ts'
import { aCommit } from './commits.ts'

const RECIPIENTS = 10
const commit = aCommit(
  '01m82xet396rw60rr0040008dt' as MessageId,
  600,
  RECIPIENTS,
  1_795_394_332_778,
)
const { recipients: _, ...committed } = {
  ...commit,
  owner: '36386063ebc4f6d4',
  term: 1,
  holders: [],
  pieces: 1,
}

test('what is committed for ten recipients takes half of its JSON, and is read as it was', () => {
  const json = JSON.stringify(committed)
  const packed = pack(committed)
  expect(packed.length).toBeLessThan(json.length / 2)
  expect(unpack(packed)).toBe(json)
})

test('whatever a sender writes is read as it was: control characters, quotes, what looks like a phrase', () => {
  const all = Array.from({ length: 0x2_10 }, (_, code) => String.fromCharCode(code)).join('')
  const subject = `${all} Привет 你好 😀 \ud800 "sizeBytes": \\"from\\": \\u0001 ","term":1,"holders":[`
  const value = { ...committed, facts: { ...committed.facts, subject }, prepend: all }
  expect(JSON.parse(unpack(pack(value)))).toEqual(value)
})

test('one letter of another script does not double the memory of the rest', () => {
  const packed = pack({ ...committed, facts: { ...committed.facts, subject: 'Привет' } })
  expect([...packed].every((letter) => letter.charCodeAt(0) <= 0xff)).toBeTrue()
})

test('texts are shared while few are known, and always say the same', () => {
  for (const kinds of [700, 1_700]) {
    for (let n = 0; n < 5_000; n += 1) {
      expect(shared(`reply ${n % kinds}`)).toBe(`reply ${n % kinds}`)
    }
  }
})
