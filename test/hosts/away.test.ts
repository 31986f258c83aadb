/** A node that was away for long gets the difference, and brings nothing back; a new one gets all. */
import { afterAll, expect, test } from 'bun:test'
import { COUNTS, PATIENCE_MS } from '../process/counts.ts'
import { clock, HostCluster, msUntil, onHosts, sameDigests, until } from './cluster.ts'
import { holdMany } from './held-many.ts'
import { Net } from './net.ts'

/** A new node serves by then, beside 100,000 held mails. */
const SERVES_MS = 60_000

onHosts('a node', () => {
  const net = new Net(5)
  afterAll(() => net.dispose())

  test(
    `that was away for ${COUNTS.hosts.deletes} deletes brings nothing back, for bytes in proportion`,
    async () => {
      const cluster = await HostCluster.start(net, [1, 2, 3])
      try {
        const count = COUNTS.hosts.deletes
        // Ten times what will differ.
        await inTurns(10 * count, (n) => block(cluster, n))
        expect(await until(() => cluster.agree(), 60_000)).toBeTrue()
        await cluster.node(3).stop()
        await inTurns(count, (n) => unblock(cluster, n))
        const sentBytes = () =>
          [1, 2].reduce((sum, host) => sum + Net.traffic(cluster.node(host).pid).outBytes, 0)
        const before = sentBytes()
        await cluster.node(3).begin()
        const backMs = await msUntil(async () => sameDigests(await cluster.views()), 60_000)
        const sent = sentBytes() - before
        expect(backMs).toBeFinite()
        expect(await entries(cluster, 3)).toBe(9 * count)
        expect(await entries(cluster, 1)).toBe(9 * count)
        expect((await cluster.views()).map(({ repairs }) => repairs)).toEqual([0, 0, 0])

        // What the whole state weighs: a new node gets it.
        await cluster.join(4, await cluster.invite(1))
        expect(await until(() => cluster.agree(), 60_000)).toBeTrue()
        const whole = Net.traffic(cluster.node(4).pid).inBytes
        console.info(
          `away for ${count} deletes of ${10 * count} entries: one again after ${Math.round(backMs)} ms; sent ${sent} B, ${Math.round(sent / count)} B a delete; the whole state takes ${whole} B`,
        )
        expect(sent).toBeLessThan(whole / 4)
      } finally {
        await cluster.dispose()
      }
    },
    PATIENCE_MS,
  )

  test(
    `that is new serves beside ${COUNTS.hosts.held} held mails`,
    async () => {
      const cluster = new HostCluster(net)
      try {
        const first = await cluster.begin(5)
        await first.stop()
        holdMany(first.data, COUNTS.hosts.held)
        await first.begin()
        const held = async (host: number) =>
          (await cluster.node(host).api<{ held: number }>('/api/v1/status')).held
        expect(await held(5)).toBe(COUNTS.hosts.held)
        const token = await cluster.invite(5)
        const beganMono = clock.monoMs()
        await cluster.join(4, token, { readyMs: 120_000 })
        const servesMs = clock.monoMs() - beganMono
        const allMs = await msUntil(async () => sameDigests(await cluster.views()), 120_000)
        console.info(
          `a new node beside ${COUNTS.hosts.held} held mails: ready after ${Math.round(servesMs)} ms (bar ${SERVES_MS}), all rows ${Math.round(allMs)} ms later, ${Net.traffic(cluster.node(4).pid).inBytes} B`,
        )
        expect(allMs).toBeFinite()
        expect(await held(4)).toBe(COUNTS.hosts.held)
      } finally {
        await cluster.dispose()
      }
    },
    PATIENCE_MS,
  )
})

/** Some at a time, so that it does not take all day. */
async function inTurns(count: number, run: (n: number) => Promise<unknown>): Promise<void> {
  for (let n = 0; n < count; n += 16) {
    const some = Array.from({ length: Math.min(16, count - n) }, (_, at) => n + at)
    await Promise.all(some.map(run))
  }
}

function block(cluster: HostCluster, n: number): Promise<unknown> {
  const body = JSON.stringify({ kind: 'sender', value: `@b${n}.example` })
  return cluster.node(1).api('/api/v1/lists/block', { method: 'POST', body })
}

function unblock(cluster: HostCluster, n: number): Promise<unknown> {
  const entry = encodeURIComponent(`@b${n}.example`)
  return cluster.node(2).api(`/api/v1/lists/block/sender/${entry}`, { method: 'DELETE' })
}

async function entries(cluster: HostCluster, host: number): Promise<number> {
  const { rows } = await cluster.node(host).api<{ rows: unknown[] }>('/api/v1/lists/block')
  return rows.length
}
