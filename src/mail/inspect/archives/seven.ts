/**
 * 7-Zip, compiled to WebAssembly: opens what zip.ts and gzip.ts do not (7z, rar, tar, cab, disk
 * images…). Its licence is in appliance/licences. It runs in an inspector process, in memory of
 * its own: no file of this machine is there, and what it unpacks is counted before it is kept.
 */
import type { ArchiveKind } from '../kinds.ts'

/** Takes the content of one unpacked file. */
export type Sink = {
  /** False: the rest is not wanted, and nothing more is unpacked. */
  readonly take: (piece: Buffer) => boolean
  readonly end: () => void
}

/** `open` gets the name of each file that is unpacked; null: nothing more is unpacked. */
export type Open = (name: string) => Sink | null

export type Extraction = {
  /** `stopped`: `open` or a sink had enough. `damaged`: not all of it could be read. */
  readonly end: 'whole' | 'encrypted' | 'damaged' | 'stopped'
  /** What 7-Zip said of what it could not do, one line; may be empty. */
  readonly words: string
}

/** As 7-Zip calls the formats after `-t`, where it has another word. */
const NAMES: Partial<Record<ArchiveKind, string>> = { ar: 'Ar', z: 'Z', lzma: 'lzma' }

/** What emscripten's file system in memory shows of itself, as far as it is used here. */
type Stream = { readonly fd: number; readonly path: string; readonly flags: number }
type StreamOps = {
  write: (stream: Stream, bytes: Int8Array, offset: number, length: number, at?: number) => number
  close?: (stream: Stream) => void
}
type NodeOps = {
  setattr?: (node: object, attributes: { size?: number }) => void
  mknod?: (parent: object, name: string, mode: number, device: number) => object
}
type OpenFile = Stream & {
  readonly stream_ops: StreamOps
  readonly node: { readonly node_ops: NodeOps }
}
type Program = {
  readonly FS: {
    readonly root: { readonly node_ops: NodeOps }
    writeFile(path: string, bytes: Uint8Array, options: { canOwn: boolean }): void
    open(path: string, flags: string): OpenFile
    close(file: OpenFile): void
  }
  callMain(words: readonly string[]): number
}
type Factory = (options: {
  instantiateWasm: (
    imports: WebAssembly.Imports,
    ready: (instance: WebAssembly.Instance) => void,
  ) => WebAssembly.Exports
  stdin: () => null
  print: (line: string) => void
  printErr: (line: string) => void
}) => Promise<Program>

/** Ends a run from within: nothing of 7-Zip catches it. */
class Stopped extends Error {
  override name = 'Stopped'
}

const WORDS_MAX = 2_000
/** Files, directories and links that one run may make. */
const NODES_MAX = 50_000
/** Each node leaves about 10 KB of garbage, which the engine collects late by itself. */
const COLLECT_NODES = 500
const WRITES = 3

export class Seven {
  readonly #module: WebAssembly.Module
  readonly #factory: Factory

  private constructor(module: WebAssembly.Module, factory: Factory) {
    this.#module = module
    this.#factory = factory
  }

  /** Reads and compiles the program: about 150 ms, once in a process that meets such an archive. */
  static async load(): Promise<Seven> {
    const [{ default: factory }, { default: path }] = await Promise.all([
      import('7z-wasm'),
      import('7z-wasm/7zz.wasm', { with: { type: 'file' } }),
    ])
    const bytes = await Bun.file(path).arrayBuffer()
    return new Seven(await WebAssembly.compile(bytes), factory as unknown as Factory)
  }

  /** Unpacks `bytes` as `kind`. Throws what `open` and its sinks throw. */
  async extract(
    bytes: Buffer,
    kind: ArchiveKind,
    password: string | null,
    open: Open,
  ): Promise<Extraction> {
    const lines: string[] = []
    let chars = 0
    const say = (line: string): void => {
      if (chars > WORDS_MAX || line.trim() === '') return
      chars += line.length
      lines.push(line.slice(0, 200))
    }
    // A fresh one each time: what a hostile archive broke in it ends with it.
    const program = await this.#factory({
      instantiateWasm: (imports, ready) => {
        const instance = new WebAssembly.Instance(this.#module, imports)
        ready(instance)
        return instance.exports
      },
      stdin: () => null,
      print: say,
      printErr: say,
    })
    const { FS } = program
    FS.writeFile('/in', bytes, { canOwn: true })
    const ended = tap(FS, open)
    let code = 0
    // It takes its exit code for that of the whole process.
    const { exitCode } = process
    try {
      code = program.callMain([
        'x',
        '-y',
        '-aou',
        '-bd',
        '-bsp0',
        '-o/o',
        `-t${NAMES[kind] ?? kind}`,
        // Never asked for: nobody is there to answer.
        `-p${password ?? ''}`,
        '/in',
      ])
    } catch (error) {
      if (error instanceof Stopped) return { end: 'stopped', words: '' }
      // A sink's own error; or 7-Zip fell over the archive, which is damage.
      if (ended.failure !== null) throw ended.failure
      return { end: 'damaged', words: error instanceof Error ? error.message.slice(0, 200) : '' }
    } finally {
      process.exitCode = exitCode ?? 0
    }
    return verdictOf(code, lines)
  }
}

/** Lets what is written pass to the sinks, keeps none of it in the file system. */
function tap(FS: Program['FS'], open: Open): { failure: Error | null } {
  const state: { failure: Error | null } = { failure: null }
  const sinks = new Map<number, { sink: Sink; at: number }>()
  const guard = <Result>(run: () => Result): Result => {
    try {
      return run()
    } catch (error) {
      if (!(error instanceof Stopped)) state.failure ??= error as Error
      throw error
    }
  }
  const give = (sink: Sink, piece: Buffer): void => {
    if (!sink.take(piece)) throw new Stopped()
  }
  const opened = (stream: Stream): { sink: Sink; at: number } => {
    const known = sinks.get(stream.fd)
    if (known !== undefined) return known
    const sink = open(stream.path.replace(/^\/o\//, ''))
    if (sink === null) throw new Stopped()
    const fresh = { sink, at: 0 }
    sinks.set(stream.fd, fresh)
    return fresh
  }
  const probe = FS.open('/in', 'r')
  const ops = probe.stream_ops
  const plainWrite = ops.write
  ops.write = (stream, bytes, offset, length, at) => {
    if (!stream.path.startsWith('/o/')) return plainWrite(stream, bytes, offset, length, at)
    return guard(() => {
      const file = opened(stream)
      const place = at ?? file.at
      // A hole in a sparse file reads as zeros.
      for (let left = place - file.at; left > 0; left -= HOLE.length)
        give(file.sink, HOLE.subarray(0, Math.min(left, HOLE.length)))
      give(file.sink, Buffer.from(bytes.buffer, bytes.byteOffset + offset, length))
      file.at = place + length
      return length
    })
  }
  ops.close = (stream) => {
    if ((stream.flags & WRITES) === 0 || !stream.path.startsWith('/o/')) return
    guard(() => {
      opened(stream).sink.end()
      sinks.delete(stream.fd)
    })
  }
  // Room that is set aside beforehand would be taken from this process.
  const nodeOps = probe.node.node_ops
  const plainAttributes = nodeOps.setattr
  nodeOps.setattr = (node, { size: _, ...attributes }) => plainAttributes?.(node, attributes)
  const rootOps = FS.root.node_ops
  const plainNode = rootOps.mknod
  let nodes = 0
  rootOps.mknod = (parent, name, mode, device) => {
    nodes += 1
    if (nodes > NODES_MAX) throw new Stopped()
    if (nodes % COLLECT_NODES === 0) Bun.gc(true)
    return plainNode?.(parent, name, mode, device) ?? {}
  }
  FS.close(probe)
  return state
}

const HOLE = Buffer.alloc(64 * 1024)

function verdictOf(code: number, lines: readonly string[]): Extraction {
  const bad = lines.filter((line) =>
    /error|wrong|unsupported|cannot|can't|unexpected|missing|is not/i.test(line),
  )
  const words = bad.slice(0, 2).join(' ').replace(/\s+/g, ' ').slice(0, 200)
  if (bad.some((line) => /wrong password|encrypted/i.test(line))) return { end: 'encrypted', words }
  return code > 1 || bad.some((line) => /^ERROR|unexpected end|missing volume/i.test(line))
    ? { end: 'damaged', words }
    : { end: 'whole', words: '' }
}
