/**
 * Three nodes under load while one after another is killed, stopped, cut off or has a full disk.
 * What got 250 with two copies arrives; what arrives twice was counted by a node.
 */
import { afterAll, expect, test } from 'bun:test'
import { existsSync, unlinkSync } from 'node:fs'
import { join } from 'node:path'
import { pause } from '../../src/base/clock.ts'
import { SeededRandom } from '../../src/base/random.ts'
import { COUNTS, PATIENCE_MS, SEED } from '../process/counts.ts'
import { accountLine } from '../process/ledger.ts'
import { clock, fillDisk, HostCluster, onHosts, until } from './cluster.ts'
import { Net } from './net.ts'
import { Backend, Stage, TIME_SCALE, tableOf } from './stage.ts'

const HOSTS = [1, 2, 3] as const
const DISK_BYTES = 700 * 1_048_576
/** Of all that was accepted. */
const DUPLICATES_MAX = 0.005

onHosts('three nodes in chaos', () => {
  const net = new Net(3)
  const backend = new Backend(net)
  afterAll(() => {
    backend.sink.stop()
    net.dispose()
  })

  test(
    `lose nothing that had two copies, in ${COUNTS.chaos.ms / 1_000} s, seed ${SEED}`,
    async () => {
      const random = new SeededRandom(SEED)
      const disks = new HostCluster(net)
      const data = new Map<number, string>()
      for (const host of HOSTS) data.set(host, await disks.smallDisk(host, DISK_BYTES))
      const stage = await Stage.set(net, backend, HOSTS, (host) => ({
        data: data.get(host) ?? '',
      }))
      const { cluster, ledger } = stage
      const told: string[] = []
      try {
        stage.open()
        const loads = HOSTS.map((host) =>
          stage.load(host, { connections: 1, perSecond: COUNTS.chaos.perSecond / HOSTS.length }),
        )
        const endMono = clock.monoMs() + COUNTS.chaos.ms
        while (clock.monoMs() < endMono) {
          const beganMono = clock.monoMs()
          const host = HOSTS[random.below(HOSTS.length)] ?? 1
          const lasts = 500 + random.below(COUNTS.chaos.everyMs / 2)
          const what = FAULTS[random.below(FAULTS.length)] ?? 'kill'
          told.push(`${what} mx${host} ${lasts} ms`)
          if (what === 'kill') {
            await cluster.node(host).kill()
            await pause(clock, lasts)
            await cluster.node(host).begin()
          } else if (what === 'stop') {
            cluster.node(host).signal('SIGSTOP')
            await pause(clock, lasts)
            cluster.node(host).signal('SIGCONT')
          } else if (what === 'cut') {
            const heal = net.isolate(host)
            await pause(clock, lasts)
            heal()
          } else {
            const file = join(data.get(host) ?? '', '..', 'filling')
            fillDisk(file)
            await pause(clock, lasts)
            if (existsSync(file)) unlinkSync(file)
          }
          await pause(clock, Math.max(0, beganMono + COUNTS.chaos.everyMs - clock.monoMs()))
        }
        await Promise.all(loads.map((load) => load.stop()))
        expect(await until(() => cluster.agree(), 120_000)).toBeTrue()
        const alone = await Promise.all(
          HOSTS.map((host) => cluster.node(host).metric('postern_unreplicated_accepts_total')),
        )
        expect(await stage.delivered(300_000)).toBeTrue()
        expect(await stage.settled(120_000)).toBeTrue()
        const account = stage.account()
        const row = await stage.told(`chaos of ${told.length} faults`)
        console.info(
          `${tableOf([row])}\n${accountLine(account)}; with one copy ${alone.join('+')}; ${told.join(', ')}; times divided by ${TIME_SCALE}`,
        )
        const { lost, phantom, corrupt } = account
        expect({ lost, phantom, corrupt }).toEqual({ lost: [], phantom: [], corrupt: [] })
        expect(account.acked).toBeGreaterThan(100)
        expect(row.duplicated).toBeLessThanOrEqual(
          Math.max(2, Math.ceil(ledger.acked * DUPLICATES_MAX)),
        )
      } finally {
        await stage.cluster.dispose()
        await disks.dispose()
      }
    },
    PATIENCE_MS,
  )
})

const FAULTS = ['kill', 'stop', 'cut', 'fill'] as const
