/** One configuration on five hosts: how soon a change is everywhere, and what a partition does. */
import { afterAll, beforeAll, expect, test } from 'bun:test'
import { COUNTS, PATIENCE_MS } from '../process/counts.ts'
import { HostCluster, msUntil, onHosts, sameDigests, until } from './cluster.ts'
import { Net } from './net.ts'

/** What stands in the bars of the design. */
const HEALED_MS = 5_000

onHosts('settings on five hosts', () => {
  const hosts = [1, 2, 3, 4, 5]
  let net: Net
  let cluster: HostCluster
  beforeAll(async () => {
    net = new Net(hosts.length)
    cluster = await HostCluster.start(net, hosts)
  }, PATIENCE_MS)
  afterAll(async () => {
    await cluster?.dispose()
    net?.dispose()
  })

  test(
    `each of ${COUNTS.hosts.changes} changes is in force on all of them`,
    async () => {
      const took: number[] = []
      for (let n = 0; n < COUNTS.hosts.changes; n += 1) {
        const value = 5 + (n % 40) / 10
        const [writer = 1, ...others] = turned(hosts, n)
        await cluster.set(writer, 'policy.hold', value)
        took.push(await cluster.msUntilSet(others, 'policy.hold', value))
      }
      took.sort((one, other) => one - other)
      const at = (share: number) => Math.round(took[Math.floor(took.length * share)] ?? Number.NaN)
      console.info(
        `${took.length} changes at 5 hosts, in force on all of them: p50 ${at(0.5)} ms, p99 ${at(0.99)} ms, longest ${Math.round(took.at(-1) ?? 0)} ms`,
      )
      expect(took.filter((ms) => !Number.isFinite(ms))).toEqual([])
    },
    PATIENCE_MS,
  )

  test('both sides of a partition are changed: other fields survive, the same field has one winner and one conflict', async () => {
    const heal = net.partition([1, 2], [3, 4, 5])
    await cluster.set(1, 'policy.hold', 4.5)
    await cluster.set(4, 'policy.reject', 19)
    await cluster.set(2, 'trace.keep', 41)
    await cluster.set(5, 'trace.keep', 42)
    expect(await until(async () => (await cluster.get(2, 'policy.hold')) === 4.5, 5_000)).toBeTrue()
    expect(await until(async () => (await cluster.get(3, 'trace.keep')) === 42, 5_000)).toBeTrue()
    // Long enough for both sides to give each other up.
    expect(await until(async () => (await cluster.stateOf(3, 1)) === 'dead', 60_000)).toBeTrue()
    expect(await until(async () => (await cluster.stateOf(1, 5)) === 'dead', 60_000)).toBeTrue()
    expect(await cluster.get(5, 'policy.hold')).not.toBe(4.5)

    heal()
    const equalMs = await msUntil(async () => sameDigests(await cluster.views()), 60_000)
    console.info(
      `digests equal ${Math.round(equalMs)} ms after a partition healed (bar ${HEALED_MS})`,
    )
    expect(equalMs).toBeFinite()
    const winner = (await cluster.get(1, 'trace.keep')) as number
    expect([41, 42]).toContain(winner)
    expect(await cluster.msUntilSet(hosts, 'trace.keep', winner)).toBeFinite()
    expect(await cluster.msUntilSet(hosts, 'policy.hold', 4.5)).toBeFinite()
    expect(await cluster.msUntilSet(hosts, 'policy.reject', 19)).toBeFinite()
    for (const host of hosts) {
      const conflicts = await cluster.conflicts(host)
      expect(conflicts.map(({ key }) => key)).toEqual(['setting/trace.keep'])
      const values = conflicts[0]?.sides.map(({ value }) => value)
      expect(values).toEqual(winner === 42 ? ['42', '41'] : ['41', '42'])
    }
    expect((await cluster.views()).map(({ repairs }) => repairs)).toEqual(hosts.map(() => 0))
  }, 120_000)

  test('keeping one side on any host ends the conflict on all', async () => {
    const [conflict] = await cluster.conflicts(3)
    const side = conflict?.sides.find(({ value }) => value === '41')?.id
    const body = JSON.stringify({ key: conflict?.key, side })
    await cluster.node(3).api('/api/v1/conflicts/keep', { method: 'POST', body })
    expect(await cluster.msUntilSet(hosts, 'trace.keep', 41)).toBeFinite()
    const none = async (host: number) => (await cluster.conflicts(host)).length === 0
    for (const host of hosts) expect(await until(() => none(host), 10_000)).toBeTrue()
  }, 60_000)
})

/** The same hosts, with another one first. */
function turned(hosts: readonly number[], by: number): readonly number[] {
  const at = by % hosts.length
  return [...hosts.slice(at), ...hosts.slice(0, at)]
}
