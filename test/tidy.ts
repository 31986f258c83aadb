/**
 * The fences of the house as a function over the sources: who may import whom, which package
 * lives where, which calls go through a seam. Of lengths it knows one, where a file of the product
 * holds more than one thing for certain; shorter ones are judged by reading.
 */
import { dirname, join } from 'node:path'

/** Path from the root of the repository to the text of the file. */
export type Sources = ReadonlyMap<string, string>

/** Folder or file, and what it may import beside itself. The first match holds. */
const FENCES: readonly (readonly [where: string, may: readonly string[]])[] = [
  ['src/base/', []],
  ['src/message/', ['src/base/']],
  ['src/config/', ['src/base/', 'src/message/']],
  ['src/store/', ['src/base/', 'src/message/', 'src/config/']],
  ['src/mail/decide/', ['src/base/', 'src/message/', 'src/config/']],
  ['src/mail/', ['src/base/', 'src/message/', 'src/config/', 'src/store/']],
  ['src/cluster/', ['src/base/', 'src/config/', 'src/store/']],
  [
    'src/admin/',
    ['src/base/', 'src/message/', 'src/config/', 'src/store/', 'src/mail/', 'src/cluster/'],
  ],
  ['web/', ['src/base/', 'src/message/', 'src/config/', 'src/admin/', 'appliance/install.sh']],
  ['src/cli/', ['src/base/', 'src/message/', 'src/config/', 'src/admin/']],
  ['src/node.ts', ['src/', 'web/', '!src/main.ts']],
  ['src/node/', ['src/', 'web/', '!src/main.ts', '!src/node.ts']],
  ['src/main.ts', ['src/', 'web/']],
  ['appliance/', []],
  ['test/', ['src/', 'web/', 'appliance/']],
]

/** The path of a mail, the only file that knows all stages. */
const PIPELINE = 'src/mail/pipeline.ts'

/** Packages that live in named folders only; `bun:` and `node:` modules that do too. */
const PACKAGES: readonly (readonly [name: string, where: readonly string[]])[] = [
  ['elysia', ['web/']],
  ['htmx.org', ['web/']],
  ['smtp-server', ['src/mail/accept/', 'src/cli/demo/sink.ts']],
  ['drizzle-orm', ['src/store/']],
  ['bun:sqlite', ['src/store/']],
  ['@noble', ['src/cluster/seal.ts']],
  ['mailauth', ['src/mail/inspect/auth/']],
  ['mailparser', ['src/mail/inspect/']],
  ['sanitize-html', ['src/mail/inspect/']],
  ['fflate', ['src/mail/inspect/']],
  ['re2js', ['src/config/rules.ts', 'src/mail/inspect/rules.ts']],
  ['7z-wasm', ['src/mail/inspect/archives/']],
  ['libyara-wasm', ['src/mail/inspect/']],
  ['tldts', ['src/mail/inspect/']],
  ['zxing-wasm', ['src/mail/inspect/']],
  ['entities', ['src/mail/inspect/']],
  ['@peculiar/x509', ['src/config/certificate.ts']],
  ['reflect-metadata', ['src/config/certificate.ts']],
  ['dns-packet', ['src/base/dns-message.ts']],
  ['ldapts', ['src/mail/accept/directory.ts']],
  ['bun:ffi', ['src/base/clock.ts', 'src/base/files.ts', 'src/mail/inspect/']],
  ['node:dns', ['src/base/dns.ts']],
  ['dns', ['src/base/dns.ts']],
]

/** Lines of one file of the product. */
const LINES_MAX = 700

type Ban = {
  readonly pattern: RegExp
  /** What to write in its place. */
  readonly instead: string
  /** Files that the rule is about. */
  readonly where: RegExp
  /** Files that may. */
  readonly except?: RegExp
}

const PRODUCT = /^(src|web)\//
const EVERYWHERE = /./

const BANS: readonly Ban[] = [
  {
    pattern: /\bDate\.now\(|\bnew Date\(\)/,
    instead: 'clock.wallMs()',
    where: PRODUCT,
    except: /^src\/base\/clock\.ts$/,
  },
  {
    pattern: /\bperformance\.now\(/,
    instead: 'clock.monoMs()',
    where: PRODUCT,
    except: /^src\/base\/clock\.ts$/,
  },
  {
    pattern: /\bset(Timeout|Interval)\(|\bBun\.sleep(Sync)?\(/,
    instead: 'clock.after()',
    where: PRODUCT,
    except: /^src\/base\/clock\.ts$/,
  },
  {
    pattern: /\bMath\.random\(|\brandomUUID\(|\bgetRandomValues\(|\brandomBytes\(/,
    instead: 'Random',
    where: PRODUCT,
    except: /^src\/base\/random\.ts$/,
  },
  { pattern: /\bBun\.dns\b/, instead: 'Resolver', where: PRODUCT, except: /^src\/base\/dns\.ts$/ },
  {
    pattern: /\bconsole\./,
    instead: 'Observer, or the output that the command was given',
    where: PRODUCT,
  },
  {
    pattern: /\bprocess\.exit\(/,
    instead: 'process.exitCode in main.ts',
    where: PRODUCT,
    except: /^src\/main\.ts$/,
  },
  {
    pattern: /@ts-(ignore|expect-error|nocheck)|biome-ignore-all/,
    instead: 'a narrower type',
    where: EVERYWHERE,
  },
  {
    pattern: /\bas any\b|(?:[:|]|<(?:[\w\s|]+,)*)\s*any\b(?=\s*[;,)>=\]|[]|\s*$)/m,
    instead: 'unknown or a narrower type',
    where: EVERYWHERE,
  },
  { pattern: /^export default /m, instead: 'a named export', where: EVERYWHERE },
  {
    pattern: /^\s*(export\s+)?(const\s+|declare\s+)?(enum|namespace)\s+\w/m,
    instead: 'a union or a plain object',
    where: EVERYWHERE,
  },
  {
    pattern:
      /\b(class|interface|type|function|const)\s+\w*(manager|helper|util|utils|service|handler|master|slave)\b/i,
    instead: 'the word of the house',
    where: EVERYWHERE,
  },
  {
    pattern: /\b(test|it|describe)\.(only|todo|skip)\b/,
    instead: 'needs() of test/real.ts',
    where: /^test\//,
    except: /^test\/real\.ts$/,
  },
]

/** Absolute paths of somebody's own machine, and where packages come from. */
const PLACES =
  /(?<![\w.:@/*-])\/(work|home|root|Users)\/\w|\bregistry\.[\w-]+\.\w{2,}|\bshared\/(design|reference|bench|hosts|corpus|libraries)\b/

/** What is wrong, one line each: `path: what; what to do`. Empty: the house is tidy. */
export function untidy(sources: Sources): string[] {
  const found: string[] = []
  const code = [...sources].filter(([path]) => path.endsWith('.ts'))
  for (const [path, text] of code) {
    found.push(...imports(path, text), ...banned(path, text))
    if (!/^(#!.*\n)?\/\*\*[\s*]+\S/.test(text)) {
      found.push(`${path}: no header; say in its first line what the file is`)
    }
    const lines = text.trimEnd().split('\n').length
    if (PRODUCT.test(path) && lines > LINES_MAX) {
      found.push(
        `${path}: ${lines} lines; give what is a thing of its own a file, up to ${LINES_MAX}`,
      )
    }
    if (/(^|[/-])(manager|helper|util|service|handler|master|slave)s?([.-]|\.ts)/.test(path)) {
      found.push(`${path}: a name that says nothing; use the word of the house`)
    }
  }
  for (const [path, text] of sources) {
    const place = PLACES.exec(text)?.[0]
    if (place !== undefined) {
      found.push(`${path}: names ${place}; the repository knows nothing outside itself`)
    }
  }
  found.push(...cycles(new Map(code)), ...versions(sources))
  return found
}

function imports(path: string, text: string): string[] {
  const found: string[] = []
  for (const wanted of specifiers(text)) {
    if (wanted.startsWith('.')) {
      const target = join(dirname(path), wanted)
      if (!/\.\w+$/.test(wanted)) found.push(`${path}: imports ${wanted} without its extension`)
      if (!mayImport(path, target)) {
        found.push(`${path}: may not import ${target}; imports go downwards only`)
      }
      if (crossesStages(path, target)) {
        found.push(`${path}: a stage imports the stage ${target}; only ${PIPELINE} knows both`)
      }
      continue
    }
    const fence = PACKAGES.find(([name]) => wanted === name || wanted.startsWith(`${name}/`))
    if (fence !== undefined && PRODUCT.test(path) && !fence[1].some((at) => path.startsWith(at))) {
      found.push(`${path}: may not import ${wanted}; it lives in ${fence[1].join(', ')}`)
    }
  }
  return found
}

/** What a text imports, types included (scanImports leaves them out). */
function specifiers(text: string): string[] {
  const pattern =
    /^\s*(?:import|export)\b[^'"`;]*?\bfrom\s*['"]([^'"]+)['"]|^\s*import\s*['"]([^'"]+)['"]|\bimport\(\s*['"]([^'"]+)['"]/gm
  return [...uncommented(text).matchAll(pattern)].map(([, a, b, c]) => a ?? b ?? c ?? '')
}

function mayImport(path: string, target: string): boolean {
  const fence = FENCES.find(([where]) => path.startsWith(where))
  if (fence === undefined) return !path.startsWith('src/')
  const [where, may] = fence
  if (target.startsWith(where)) return true
  if (may.some((place) => place.startsWith('!') && target.startsWith(place.slice(1)))) return false
  return may.some((place) => target.startsWith(place))
}

function crossesStages(path: string, target: string): boolean {
  if (path === PIPELINE) return false
  const stage = (file: string) => /^src\/mail\/(\w+)(?:\/|\.ts$)/.exec(file)?.[1]
  const [from, to] = [stage(path), stage(target)]
  return from !== undefined && to !== undefined && from !== to
}

function banned(path: string, text: string): string[] {
  const bare = uncommented(text)
  return BANS.flatMap(({ pattern, instead, where, except }) => {
    if (!where.test(path) || except?.test(path)) return []
    const subject = pattern.source.startsWith('@ts') ? text : bare
    const match = pattern.exec(subject)?.[0].trim()
    return match === undefined ? [] : [`${path}: \`${match}\`; use ${instead}`]
  })
}

/** The text without comments. A `//` inside a string stays: it follows a colon or a quote. */
function uncommented(text: string): string {
  return text
    .replace(/(^|[\s({,;])\/\*[\s\S]*?\*\//g, '$1')
    .replace(/(^|[\s;{}(,])\/\/[^\n]*/g, '$1')
}

/** Import cycles of values; types may point anywhere that the fences allow. */
function cycles(code: Sources): string[] {
  const transpiler = new Bun.Transpiler({ loader: 'ts' })
  const edges = new Map<string, string[]>()
  for (const [path, text] of code) {
    const targets = transpiler
      .scanImports(text)
      .filter(({ kind, path: wanted }) => kind === 'import-statement' && wanted.startsWith('.'))
      .map(({ path: wanted }) => join(dirname(path), wanted))
    edges.set(path, targets)
  }
  const found: string[] = []
  const done = new Set<string>()
  const visit = (path: string, trail: readonly string[]): void => {
    if (trail.includes(path)) {
      found.push(`${[...trail.slice(trail.indexOf(path)), path].join(' > ')}: a cycle of imports`)
      return
    }
    if (done.has(path)) return
    for (const target of edges.get(path) ?? []) visit(target, [...trail, path])
    done.add(path)
  }
  for (const path of edges.keys()) visit(path, [])
  return found
}

type Manifest = Readonly<Record<string, Readonly<Record<string, string>> | undefined>>

/** Exact versions only, and no package that nothing imports. */
function versions(sources: Sources): string[] {
  const text = sources.get('package.json')
  if (text === undefined) return []
  const manifest = JSON.parse(text) as Manifest
  const found: string[] = []
  for (const part of ['dependencies', 'devDependencies', 'overrides']) {
    for (const [name, version] of Object.entries(manifest[part] ?? {})) {
      if (!/^\d+\.\d+\.\d+$/.test(version)) {
        found.push(`package.json: ${name} ${version}; pin one exact version`)
      }
    }
  }
  const used = new Set(
    [...sources].flatMap(([path, body]) => (path.endsWith('.ts') ? specifiers(body) : [])),
  )
  for (const name of Object.keys(manifest['dependencies'] ?? {})) {
    if (![...used].some((wanted) => wanted === name || wanted.startsWith(`${name}/`))) {
      found.push(`package.json: nothing imports ${name}; remove it`)
    }
  }
  return found
}
