/** Who gets a link, who gets none, and which one of two stays. */
import { describe, expect, test } from 'bun:test'
import type { Link } from '../src/cluster/contract.ts'
import { Cast } from './cast.ts'

const HELLO = new TextEncoder().encode('hello')

async function pair() {
  const cast = new Cast()
  const [a, b] = [cast.add('aa'), cast.add('bb')]
  const [tableA, tableB] = [await cast.open(a, 'a'), await cast.open(b, 'b')]
  await cast.pass(200)
  return { cast, a, b, tableA, tableB }
}

describe('one link a pair', () => {
  test('two members have one link, dialled by the smaller id, and it carries messages', async () => {
    const { a, b, cast, tableA, tableB } = await pair()
    const [there, here] = [tableA.get(b.node), tableB.get(a.node)]
    expect([there?.outgoing, here?.outgoing]).toEqual([true, false])
    expect(there?.instance).toBe(b.instance)
    const got: string[] = []
    tableB.onMessage(9, (link, body) => got.push(`${link.peer} ${body.length}`))
    expect(there?.send(9, HELLO)).toBe(true)
    expect(got).toEqual([`${a.node} 5`])
    expect(there?.roundTripMs).toBe(0)
    expect(tableA.trouble(b.node)).toBeNull()
    await cast.pass(60_000)
    expect([tableA.get(b.node), tableB.get(a.node)]).toEqual([there ?? null, here ?? null])
  })
})

export type { Link }
