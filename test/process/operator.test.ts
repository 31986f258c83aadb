/**
 * What an operator sees of a real cluster of two from the node that took none of the mail: the queue
 * of the other one, its copies when it is killed, the alert, and the mail taken over.
 */
import { afterAll, expect, test } from 'bun:test'
import { pause, SystemClock } from '../../src/base/clock.ts'
import { sendMail } from '../browser/node.ts'
import { freePort } from '../ports.ts'
import { Postern } from './postern.ts'

/** Long times in this run: 120 s are 6, 600 s are 30. */
const SCALE = '20'
const clock = new SystemClock()
const nodes: Postern[] = []

afterAll(async () => {
  for (const node of nodes) await node.dispose()
})

type Row = {
  readonly id: string
  readonly nodeName: string
  readonly state: string
  readonly term: number
  readonly holders: readonly { readonly nodeName: string; readonly state: string }[]
}
type Alert = { readonly kind: string; readonly nodeName: string | null }

async function begin(name: string, join: readonly string[]): Promise<Postern> {
  const peer = ['--peer', `127.0.0.1:${freePort()}`, '--advertise', '127.0.0.1']
  const options = ['--name', name, '--time-scale', SCALE, ...peer, ...join]
  const node = await Postern.start({ options })
  nodes.push(node)
  return node
}

/** The first answer that is so. @throws after a minute with the last one */
async function until<Value>(
  ask: () => Promise<Value>,
  isSo: (value: Value) => boolean,
): Promise<Value> {
  const endMono = clock.monoMs() + 60_000
  for (;;) {
    const value = await ask()
    if (isSo(value)) return value
    if (clock.monoMs() > endMono) throw new Error(JSON.stringify(value))
    await pause(clock, 100)
  }
}

test('the queue of a node is seen, tried and given up on the other; killed, its copies go on there', async () => {
  const mx1 = await begin('mx1', [])
  // Nobody listens there: all mail waits.
  await mx1.addDomain('example.com', `smtp://127.0.0.1:${freePort()}`)
  const { token } = await mx1.json<{ token: string }>('invite')
  const mx2 = await begin('mx2', ['--join', token])
  const queue = () => mx1.json<readonly Row[]>('queue', 'list')
  type Status = { readonly alerts: readonly Alert[] }
  const alerts = async () => (await mx1.json<Status>('status')).alerts
  await until(
    () => mx2.json<{ nodes: readonly { state: string }[] }>('status'),
    ({ nodes: all }) => all.length === 2 && all.every(({ state }) => state === 'alive'),
  )
  for (const subject of ['one', 'two', 'three']) {
    await sendMail(mx2.smtpPort, { to: 'ann@example.com', subject, text: 'hello' })
  }
  const copied = ({ holders }: Row) => holders.some(({ state }) => state === 'kept')
  // Tried once, so that nothing is under way when it is tried again.
  const waits = (row: Row) => row.state === 'deferred' && copied(row)
  const rows = await until(queue, (all) => all.length === 3 && all.every(waits))
  expect(rows.map(({ nodeName, term }) => [nodeName, term])).toEqual(Array(3).fill(['mx2', 1]))
  expect(rows[0]?.holders).toMatchObject([{ nodeName: 'mx1', state: 'kept' }])
  expect((await mx1.command('queue', 'list', '--alone')).out).toBe('The queue is empty.\n')
  expect(await mx1.json('queue', 'retry')).toMatchObject({ retried: 3, silent: [] })
  const [first] = rows as [Row]
  expect((await mx1.command('queue', 'drop', first.id)).code).toBe(0)
  await until(queue, (all) => all.length === 2)
  // What ended on the other node is forgotten here, soon after.
  await until(
    () => mx1.metric('postern_copies_messages'),
    (copies) => copies === 2,
  )
  expect(await alerts()).toEqual([])

  await mx2.kill()
  const kept = await until(queue, (all) => all.length === 2)
  expect(kept.every(copied)).toBe(true)
  const taken = await until(queue, (all) => all.every(({ nodeName }) => nodeName === 'mx1'))
  expect(taken.map(({ id, term }) => [id, term])).toEqual(rows.slice(1).map(({ id }) => [id, 2]))
  const told = await until(alerts, (all) => all.length === 2)
  expect(told.map(({ kind, nodeName }) => `${kind} ${nodeName}`).toSorted()).toEqual([
    'alone mx1',
    'dead mx2',
  ])
  const [id = ''] = taken.map((row) => row.id)
  const { events } = await mx1.json<{ events: readonly { what: string }[] }>('trace', 'show', id)
  expect(events.map(({ what }) => what)).toContain('adopted')
  expect(await mx1.json<readonly Row[]>('queue', 'list', '--alone')).toHaveLength(2)
}, 180_000)
