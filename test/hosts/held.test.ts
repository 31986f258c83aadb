/** Held mail on real hosts: released once, whoever clicks, whoever is dead or cut off. */
import { afterAll, expect, test } from 'bun:test'
import { COUNTS, PATIENCE_MS } from '../process/counts.ts'
import { holdOne, onHosts, until } from './cluster.ts'
import { Net } from './net.ts'
import { Backend, inTurn, Stage } from './stage.ts'

const MAILS = 100
/** Of each node, for each mail. */
const CLICKS = 3
const APART = COUNTS.hosts.apart
/** A death is confirmed by then: the long times are the true ones here. */
const CONFIRMED_MS = 90_000

type Held = { readonly id: string; readonly holders: readonly { readonly name: string }[] }

onHosts('held mail', () => {
  const net = new Net(12)
  const backend = new Backend(net)
  afterAll(() => {
    backend.sink.stop()
    net.dispose()
  })

  const promise = (
    name: string,
    hosts: readonly [number, number, number],
    run: (stage: Stage, hosts: readonly [number, number, number]) => Promise<void>,
  ) =>
    test.concurrent(
      name,
      () =>
        inTurn(async () => {
          const stage = await Stage.set(net, backend, hosts, () => ({
            options: ['--time-scale', '1'],
          }))
          try {
            await run(stage, hosts)
          } finally {
            await stage.cluster.dispose()
          }
        }),
      PATIENCE_MS,
    )

  /** Held mails of a host, as another one lists them. */
  const heldOn = async (stage: Stage, host: number): Promise<readonly Held[]> => {
    const path = '/api/v1/quarantine?limit=1000'
    return (await stage.cluster.node(host).api<{ rows: readonly Held[] }>(path)).rows
  }

  const hold = async (stage: Stage, host: number, mails: number): Promise<void> => {
    for (let n = 0; n < mails; n += 1) {
      await holdOne(net.address(host), `held${n}@${stage.domain}`, `m${n}`)
    }
  }

  /** One click; the status of the answer. */
  const release = async (stage: Stage, host: number, id: string, anyway = false) => {
    const init = { method: 'POST', body: JSON.stringify(anyway ? { anyway } : {}) }
    const response = await stage.cluster.node(host).fetch(`/api/v1/quarantine/${id}/release`, init)
    await response.arrayBuffer()
    return response.status
  }

  const arrived = (stage: Stage): readonly string[] =>
    backend.sink.arrivals.flatMap(({ recipients: [first] }) =>
      first?.address.startsWith('held') === true && first.address.endsWith(`@${stage.domain}`)
        ? [first.address]
        : [],
    )

  const haveTwo = (stage: Stage, host: number, mails: number): Promise<boolean> =>
    until(async () => {
      const rows = await heldOn(stage, host)
      return rows.length === mails && rows.every(({ holders }) => holders.length > 0)
    }, 60_000)

  promise(
    `of ${MAILS} messages, released from three nodes with three clicks each, arrives once`,
    [1, 2, 3],
    async (stage, hosts) => {
      stage.open()
      // Every node owns some of them.
      for (let n = 0; n < MAILS; n += 1) {
        const owner = net.address(hosts[n % hosts.length] ?? 1)
        await holdOne(owner, `held${n}@${stage.domain}`, `m${n}`)
      }
      for (const host of hosts) expect(await haveTwo(stage, host, MAILS)).toBeTrue()
      const ids = (await heldOn(stage, hosts[1])).map(({ id }) => id)
      const clicks = Array.from({ length: CLICKS }, () => hosts).flat()
      const codes = await Promise.all(
        ids.flatMap((id) => clicks.map((host) => release(stage, host, id))),
      )
      // Done, noted for an owner that is busy, or done before: nothing else.
      expect(codes.filter((code) => ![200, 202, 409].includes(code))).toEqual([])
      const isThere = () => new Set(arrived(stage)).size === MAILS
      expect(await backend.sink.until(isThere, 60_000)).toBeTrue()
      expect(await stage.settled()).toBeTrue()
      expect(arrived(stage).length).toBe(MAILS)
    },
  )

  promise(
    'is released by another holder when its owner is dead for sure, once',
    [4, 5, 6],
    async (stage, hosts) => {
      stage.open()
      const [owner, second, third] = hosts
      await hold(stage, owner, 10)
      for (const host of hosts) expect(await haveTwo(stage, host, 10)).toBeTrue()
      const ids = (await heldOn(stage, second)).map(({ id }) => id)
      await stage.cluster.node(owner).kill()
      const isConfirmed = async (host: number) =>
        (await stage.cluster.node(host).metric('postern_nodes_confirmed_dead_total')) > 0
      for (const host of [second, third])
        expect(await until(() => isConfirmed(host), CONFIRMED_MS)).toBeTrue()
      // As a person does: again, while something is still there.
      const areThere = async () => {
        const clicks = ids.flatMap((id) => [release(stage, second, id), release(stage, third, id)])
        await Promise.all(clicks)
        return new Set(arrived(stage)).size === 10
      }
      expect(await until(areThere, 60_000, 1_000)).toBeTrue()
      // The former owner comes back, and everybody clicks once more.
      await stage.cluster.node(owner).begin()
      expect(await until(() => stage.cluster.agree(), 60_000)).toBeTrue()
      await Promise.all(hosts.flatMap((host) => ids.map((id) => release(stage, host, id))))
      expect(await stage.settled()).toBeTrue()
      expect(arrived(stage).length).toBe(10)
      console.info('held mail of a dead owner: 10 released by the others, 10 arrived')
    },
  )

  promise(
    'waits for an owner that is cut off, and arrives once when the partition heals',
    [7, 8, 9],
    async (stage, hosts) => {
      stage.open()
      const [owner, second, third] = hosts
      await hold(stage, owner, APART)
      for (const host of hosts) expect(await haveTwo(stage, host, APART)).toBeTrue()
      const ids = (await heldOn(stage, second)).map(({ id }) => id)
      const heal = net.partition([owner], [second, third])
      const isGone = async () => (await stage.cluster.stateOf(owner, second)) !== 'alive'
      expect(await until(isGone, 60_000)).toBeTrue()
      await Promise.all(
        ids.flatMap((id) => [release(stage, second, id), release(stage, third, id)]),
      )
      const own = ids.slice(0, APART / 2)
      await Promise.all(own.map((id) => release(stage, owner, id)))
      expect(new Set(arrived(stage)).size).toBeLessThanOrEqual(own.length)
      heal()
      const isThere = () => new Set(arrived(stage)).size === APART
      expect(await backend.sink.until(isThere, 120_000)).toBeTrue()
      expect(await stage.settled()).toBeTrue()
      expect(arrived(stage).length).toBe(APART)
    },
  )

  promise(
    'is released by another node on the word of an operator, counted, and stays in sight',
    [10, 11, 12],
    async (stage, hosts) => {
      stage.open()
      const [owner, second, third] = hosts
      await hold(stage, owner, 2)
      for (const host of hosts) expect(await haveTwo(stage, host, 2)).toBeTrue()
      const [id = '', other = ''] = (await heldOn(stage, second)).map((row) => row.id)
      const heal = net.partition([owner], [second, third])
      const isGone = async () => (await stage.cluster.stateOf(owner, second)) !== 'alive'
      expect(await until(isGone, 60_000)).toBeTrue()
      // As a person does: again, until somebody who has it may.
      const isDone = async () => [200, 409].includes(await release(stage, second, id, true))
      expect(await until(isDone, 60_000, 1_000)).toBeTrue()
      expect(await backend.sink.until(() => arrived(stage).length === 1, 90_000)).toBeTrue()
      const counted = await Promise.all(
        [second, third].map((host) =>
          stage.cluster.node(host).metric('postern_possible_duplicates_total'),
        ),
      )
      expect(Math.max(...counted)).toBe(1)
      for (const host of [second, third]) {
        const { nodeName } = await stage.cluster
          .node(host)
          .api<{ nodeName: string }>(`/api/v1/quarantine/${id}`)
        expect(nodeName).not.toBe(`mx${owner}`)
        expect((await heldOn(stage, host)).map((held) => held.id)).toEqual([other])
      }
      heal()
      expect(await until(() => stage.cluster.agree(), 60_000)).toBeTrue()
      expect(await stage.settled()).toBeTrue()
      expect(arrived(stage)).toHaveLength(1)
    },
  )
})
