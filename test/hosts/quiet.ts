/** What nodes cost that have nothing to do: bytes on the wire, and time of the processor. */
import { pause } from '../../src/base/clock.ts'
import { cpuMsOf } from '../process/proc.ts'
import { clock, HostCluster, until } from './cluster.ts'
import { Net } from './net.ts'

/** Means over the nodes. */
export type Quiet = {
  /** Bytes of frames, in and out. */
  readonly bytesPerS: number
  /** Of one core: 0.01 is one in a hundred. */
  readonly cpuShare: number
}

/** After a cluster has come to rest: the beats of the beginning are over. */
const REST_MS = 10_000

/** Starts a cluster on these hosts, and looks at it for `forMs`. */
export async function quiet(net: Net, hosts: readonly number[], forMs: number): Promise<Quiet> {
  const cluster = await HostCluster.start(net, hosts)
  try {
    await until(() => cluster.agree(), 20_000)
    await pause(clock, REST_MS)
    const pids = hosts.map((host) => cluster.node(host).pid)
    const bytes = () => sum(pids.map((pid) => Net.traffic(pid).inBytes + Net.traffic(pid).outBytes))
    const cpuMs = () => sum(pids.map(cpuMsOf))
    const [bytesBefore, cpuBefore, beganMono] = [bytes(), cpuMs(), clock.monoMs()]
    await pause(clock, forMs)
    const tookMs = clock.monoMs() - beganMono
    return {
      bytesPerS: ((bytes() - bytesBefore) * 1_000) / tookMs / hosts.length,
      cpuShare: (cpuMs() - cpuBefore) / tookMs / hosts.length,
    }
  } finally {
    await cluster.dispose()
  }
}

function sum(values: readonly number[]): number {
  return values.reduce((total, value) => total + value, 0)
}
