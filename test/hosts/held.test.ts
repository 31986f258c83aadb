/** Held mail on real hosts: released once, whoever clicks, whoever is dead or cut off. */
import { afterAll, expect, test } from 'bun:test'
import { PATIENCE_MS } from '../process/counts.ts'
import { holdOne, onHosts, until } from './cluster.ts'
import { Net } from './net.ts'
import { Backend, inTurn, Stage } from './stage.ts'

const MAILS = 100
/** A death is confirmed by then: the long times are the true ones here. */
const CONFIRMED_MS = 90_000

type Held = { readonly id: string; readonly holders: readonly { readonly name: string }[] }

onHosts('held mail', () => {
  const net = new Net(9)
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
      await hold(stage, hosts[0], MAILS)
      for (const host of hosts) expect(await haveTwo(stage, host, MAILS)).toBeTrue()
      const ids = (await heldOn(stage, hosts[1])).map(({ id }) => id)
      const codes = await Promise.all(
        ids.flatMap((id) => hosts.map((host) => release(stage, host, id))),
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
      await hold(stage, owner, 10)
      for (const host of hosts) expect(await haveTwo(stage, host, 10)).toBeTrue()
      const ids = (await heldOn(stage, second)).map(({ id }) => id)
      const heal = net.partition([owner], [second, third])
      const isGone = async () => (await stage.cluster.stateOf(owner, second)) !== 'alive'
      expect(await until(isGone, 60_000)).toBeTrue()
      await Promise.all(
        ids.flatMap((id) => [release(stage, second, id), release(stage, third, id)]),
      )
      await Promise.all(ids.slice(0, 5).map((id) => release(stage, owner, id)))
      expect(new Set(arrived(stage)).size).toBeLessThanOrEqual(5)
      heal()
      const isThere = () => new Set(arrived(stage)).size === 10
      expect(await backend.sink.until(isThere, 120_000)).toBeTrue()
      expect(await stage.settled()).toBeTrue()
      expect(arrived(stage).length).toBe(10)
    },
  )
})
