/**
 * Hosts on one machine: a network namespace each, joined by a bridge in one more, which the test
 * itself enters. Nothing of it reaches the machine's own network. What the bridge drops is how
 * hosts are cut off from each other; the test always reaches all of them.
 */
import { dlopen, FFIType } from 'bun:ffi'
import { closeSync, existsSync, openSync, readdirSync, readFileSync } from 'node:fs'
import type { Subprocess } from 'bun'

const NAMESPACES = '/run/netns'
const SUBNET = '10.88.0'
/** The test on the bridge: client, next hop, and the machine in the middle. */
const OUTSIDE = 254
/** setns(2): the namespace is one of networks. */
const CLONE_NEWNET = 0x4000_0000
/** `postern-test-PID-…`: who made it. */
const NAME = /^postern-test-(\d+)-/

/** What one host has sent and got on its interface, bytes of frames. */
export type Traffic = { readonly inBytes: number; readonly outBytes: number }

/** Ends the fault. */
export type Cut = () => void

const nets = new Set<Net>()
process.on('exit', () => {
  for (const net of nets) net.dispose()
})

/** Whether this machine makes network namespaces: a container without the right does not. */
export function canMakeNetworks(): boolean {
  const name = `postern-test-${process.pid}-probe`
  if (process.getuid?.() !== 0 || Bun.which('ip') === null) return false
  const made = Bun.spawnSync(['ip', 'netns', 'add', name], { stderr: 'ignore' }).exitCode === 0
  if (made) run('ip', 'netns', 'del', name)
  return made
}

export class Net {
  readonly size: number
  readonly #prefix: string
  readonly #own: number
  #captures: Subprocess[] = []

  /** Hosts 1 to `size`. One at a time: the thread is in it. @throws when the machine cannot */
  constructor(size: number) {
    if (nets.size > 0) throw new Error('there is a network already')
    this.size = size
    this.#prefix = `postern-test-${process.pid}-`
    this.#own = openSync('/proc/self/ns/net', 'r')
    nets.add(this)
    removeLeftovers()
    const bridge = this.#namespace('bridge')
    run('ip', 'netns', 'add', bridge)
    for (let host = 1; host <= size; host += 1) run('ip', 'netns', 'add', this.namespace(host))
    batch(bridge, [
      'link set lo up',
      'link add br0 type bridge stp_state 0 forward_delay 0 mcast_snooping 0',
      'link set br0 up',
      `addr add ${this.outside}/24 dev br0`,
    ])
    for (let host = 1; host <= size; host += 1) {
      run(
        ...['ip', 'link', 'add', `v${host}`, 'netns', bridge],
        ...['type', 'veth', 'peer', 'name', 'eth0', 'netns', this.namespace(host)],
      )
      batch(bridge, [`link set v${host} master br0 up`])
      batch(this.namespace(host), [
        'link set lo up',
        `addr add ${this.address(host)}/24 dev eth0`,
        'link set eth0 up',
      ])
    }
    this.#nft('add table bridge cut')
    this.#nft(
      'add chain bridge cut links { type filter hook forward priority 0 ; policy accept ; }',
    )
    enter(openSync(`${NAMESPACES}/${bridge}`, 'r'))
  }

  /** Where the test is, on the same wire. */
  get outside(): string {
    return `${SUBNET}.${OUTSIDE}`
  }

  address(host: number): string {
    return `${SUBNET}.${host}`
  }

  namespace(host: number): string {
    return this.#namespace(`mx${host}`)
  }

  #namespace(name: string): string {
    return `${this.#prefix}${name}`
  }

  /** No frame passes between the two groups. */
  partition(left: readonly number[], right: readonly number[]): Cut {
    return this.#cut([way(left, right), way(right, left)])
  }

  /** Frames `from` one group `to` the other are lost; those of the other way pass. */
  oneway(from: readonly number[], to: readonly number[]): Cut {
    return this.#cut([way(from, to)])
  }

  /** Cuts a host off all others. */
  isolate(host: number): Cut {
    const others = Array.from({ length: this.size }, (_, at) => at + 1).filter((n) => n !== host)
    return this.partition([host], others)
  }

  /** Of all frames between these hosts, this share is lost at random, 0..1. */
  loss(hosts: readonly number[], share: number): Cut {
    const lost = `numgen random mod 1000 < ${Math.round(share * 1_000)}`
    return this.#cut([`${way(hosts, hosts)} ${lost}`])
  }

  blockUdp(hosts: readonly number[]): Cut {
    return this.#cut([`${way(hosts, hosts)} ip protocol udp`])
  }

  /** What a host may send, kbit a second; null: as much as it can. */
  rate(host: number, kbit: number | null): void {
    const device = ['qdisc', kbit === null ? 'del' : 'replace', 'dev', 'eth0', 'root']
    const limit =
      kbit === null ? [] : ['tbf', 'rate', `${kbit}kbit`, 'burst', '16kb', 'latency', '400ms']
    run('tc', '-n', this.namespace(host), ...device, ...limit)
  }

  /** What the interface of a process in a host's namespace has counted. */
  static traffic(pid: number): Traffic {
    const text = readFileSync(`/proc/${pid}/net/dev`, 'latin1')
    const fields = /^\s*eth0:(.*)$/m.exec(text)?.[1]?.trim().split(/\s+/).map(Number) ?? []
    return { inBytes: fields[0] ?? 0, outBytes: fields[8] ?? 0 }
  }

  /** Writes the frames between hosts that `filter` (pcap-filter(7)) takes to a file, until `stop`. */
  async capture(file: string, filter: string): Promise<{ readonly stop: () => Promise<void> }> {
    const child = Bun.spawn(
      [
        'tcpdump',
        '-i',
        'br0',
        '-U',
        '--immediate-mode',
        '-s',
        '0',
        '-Z',
        'root',
        '-B',
        '16384',
        '-w',
        file,
        filter,
      ],
      { stdin: 'ignore', stdout: 'ignore', stderr: 'pipe' },
    )
    this.#captures.push(child)
    const listens = Promise.withResolvers<void>()
    const read = async (): Promise<string> => {
      const decoder = new TextDecoder()
      let said = ''
      for await (const piece of child.stderr) {
        said += decoder.decode(piece, { stream: true })
        if (said.includes('listening on')) listens.resolve()
      }
      return said
    }
    const ended = read().then((said) => listens.reject(new Error(said)))
    await listens.promise
    return {
      stop: async () => {
        child.kill('SIGINT')
        await ended
      },
    }
  }

  /** Removes everything. Harmless twice. */
  dispose(): void {
    if (!nets.delete(this)) return
    for (const child of this.#captures) child.kill('SIGKILL')
    enter(this.#own)
    for (const name of namespaces()) if (name.startsWith(this.#prefix)) remove(name)
  }

  #cut(ways: readonly string[]): Cut {
    const chain = 'bridge cut links'
    const handles = ways.map((one) => {
      const said = this.#nft('-e', '-a', `add rule ${chain} ${one} drop`)
      return /# handle (\d+)/.exec(said)?.[1]
    })
    return () => {
      for (const handle of handles) this.#nft(`delete rule ${chain} handle ${handle}`)
    }
  }

  #nft(...words: readonly string[]): string {
    return run('ip', 'netns', 'exec', this.#namespace('bridge'), 'nft', ...words)
  }
}

/** This thread, and what it opens and starts from now on, is in that namespace. Takes the file. */
function enter(fd: number): void {
  const { symbols } = dlopen('libc.so.6', {
    setns: { args: [FFIType.i32, FFIType.i32], returns: FFIType.i32 },
  })
  const failed = symbols.setns(fd, CLONE_NEWNET) !== 0
  closeSync(fd)
  if (failed) throw new Error('setns failed')
}

/** Networks of test processes that were killed. */
function removeLeftovers(): void {
  for (const name of namespaces()) {
    const maker = NAME.exec(name)?.[1]
    if (maker !== undefined && !existsSync(`/proc/${maker}`)) remove(name)
  }
}

/** With all that runs in it: also what an installer has left in the background. */
function remove(namespace: string): void {
  const { stdout } = Bun.spawnSync(['ip', 'netns', 'pids', namespace])
  for (const pid of stdout.toString().split('\n').map(Number)) {
    if (pid === 0 || pid === process.pid) continue
    try {
      process.kill(pid, 'SIGKILL')
    } catch {
      // It has ended by itself.
    }
  }
  Bun.spawnSync(['ip', 'netns', 'del', namespace])
}

function namespaces(): readonly string[] {
  return existsSync(NAMESPACES) ? readdirSync(NAMESPACES) : []
}

/** Frames of one group to another, as nft matches them. */
function way(from: readonly number[], to: readonly number[]): string {
  return `iifname ${setOf(from)} oifname ${setOf(to)}`
}

function setOf(hosts: readonly number[]): string {
  return `{ ${hosts.map((host) => `"v${host}"`).join(', ')} }`
}

/** Commands of ip(8) in one process. */
function batch(namespace: string, commands: readonly string[]): void {
  run('sh', '-c', `printf '${commands.join('\\n')}\\n' | ip -n ${namespace} -batch -`)
}

function run(...command: readonly string[]): string {
  const { exitCode, stdout, stderr } = Bun.spawnSync([...command])
  if (exitCode !== 0) throw new Error(`${command.join(' ')}: exit ${exitCode}: ${stdout}${stderr}`)
  return stdout.toString()
}
