/**
 * Office documents since 2007 and OpenDocument: parts of a zip, each by its name. XML is searched
 * as text, never parsed: no entity is read, and how deep it goes costs nothing.
 */
import { sayDde, sayMacroSheets } from './office.ts'
import type { Scene } from './scene.ts'

const TEXT_BYTES_MAX = 16 * 1024 * 1024

/** One part; `name` as it stands in the archive. */
export function lookAtPart(name: string, content: Buffer, scene: Scene): void {
  const path = name.toLowerCase().replaceAll('\\', '/')
  if (/(?:^|\/)xl\/macrosheets\/[^/]+\.(?:xml|bin)$/.test(path)) sayMacroSheets(1, false, scene)
  if (/^basic\/.*\.xml$/.test(path) && !/\/script-l[bc]\.xml$/.test(path)) sayBasic(content, scene)
  if (!/\.(?:xml|rels|vml)$/.test(path)) return
  const text = textOf(content)
  if (/<!ENTITY\b/i.test(text.slice(0, 64 * 1024)))
    scene.say('OFFICE_DTD', 5, `${scene.path} declares entities, which no Office program writes.`)
  if (path.endsWith('.rels')) lookAtRelations(text, scene)
  else if (path === 'xl/workbook.xml') {
    if (/<definedName\b[^>]*name="_xlnm\.auto_(?:open|close)/i.test(text))
      sayMacroSheets(1, true, scene)
  } else if (path.startsWith('xl/externallinks/')) {
    if (/<(?:\w+:)?ddeLink\b/i.test(text)) sayDde(scene)
  } else if (/^word\/|^content\.xml$/.test(path)) lookAtFields(text, scene)
}

/** UTF-16 is rare and legal: its ASCII is what is looked for. */
function textOf(content: Buffer): string {
  const wide =
    (content[0] === 0xff && content[1] === 0xfe) || (content[0] === 0xfe && content[1] === 0xff)
  const text = content.toString('latin1', 0, Math.min(content.length, TEXT_BYTES_MAX))
  return wide || text.includes('\0') ? text.replace(/\0/g, '') : text
}

function attribute(tag: string, name: string): string {
  const match = new RegExp(`\\b${name}\\s*=\\s*(?:"([^"]*)"|'([^']*)')`, 'i').exec(tag)
  return plain(match?.[1] ?? match?.[2] ?? '')
}

/** The five entities of XML, and characters by number. */
function plain(text: string): string {
  if (!text.includes('&')) return text
  return text.replace(
    /&(?:#(\d{1,7})|#x([0-9a-f]{1,6})|(lt|gt|amp|quot|apos));/gi,
    (whole, number, hex, word) => {
      if (word !== undefined)
        return (
          { lt: '<', gt: '>', amp: '&', quot: '"', apos: "'" }[String(word).toLowerCase()] ?? whole
        )
      const code = number === undefined ? Number.parseInt(hex, 16) : Number(number)
      return code > 0 && code <= 0x10_ffff ? String.fromCodePoint(code) : whole
    },
  )
}

const RELATIONS_MAX = 20_000

/** Part 1 of ECMA-376, Open Packaging: what a document fetches from elsewhere. */
function lookAtRelations(text: string, scene: Scene): void {
  let left = RELATIONS_MAX
  for (const [tag] of text.matchAll(/<(?:\w{1,20}:)?Relationship\s[^>]{0,8192}>/gi)) {
    left -= 1
    if (left < 0) return
    if (attribute(tag, 'TargetMode').toLowerCase() !== 'external') continue
    const kind = attribute(tag, 'Type').split('/').at(-1)?.toLowerCase() ?? ''
    const target = attribute(tag, 'Target').trim()
    lookAtTarget(kind, target, scene)
  }
}

/** Kinds of relations that are followed without a click. */
const FETCHED = new Set([
  'attachedtemplate',
  'oleobject',
  'frame',
  'subdocument',
  'control',
  'webextension',
  'package',
])

function lookAtTarget(kind: string, target: string, scene: Scene): void {
  const web = /^(?:https?|ftp):/i.test(target)
  // Templates and charts of one's own machine or office are written by every Word and Excel.
  const share = /^(?:file:\/*)?[\\/]{2,}[\w.-]+@|^(?:file:\/*)?\\\\[\w-]+\.[\w.-]+/i.test(target)
  const odd = /^(?:mhtml|mk|script|javascript|vbscript|ms-\w+):|!x-usc:/i.test(target)
  if (web && kind === 'hyperlink') scene.url(target)
  if (!FETCHED.has(kind) || !(web || share || odd)) {
    if (odd) scene.say('OFFICE_REMOTE_OBJECT', 8, `${scene.path} leads to ${target.slice(0, 100)}.`)
    return
  }
  if (web) scene.url(target)
  if (kind === 'attachedtemplate')
    scene.say(
      'OFFICE_REMOTE_TEMPLATE',
      8,
      `${scene.path} fetches its template from ${target.slice(0, 100)}.`,
    )
  else
    scene.say(
      'OFFICE_REMOTE_OBJECT',
      odd || kind !== 'package' ? 8 : 5,
      `${scene.path} fetches a part of itself from ${target.slice(0, 100)}.`,
    )
}

/** Fields may lie in pieces: the instructions of a document are read as one text. */
function lookAtFields(text: string, scene: Scene): void {
  if (!/DDE/i.test(text) && !/instrText/i.test(text)) return
  let instructions = ''
  for (const match of text.matchAll(
    /<w:instrText\b[^>]{0,200}>([^<]{0,2000})|\bw:instr\s*=\s*"([^"]{0,2000})"|<w:fldChar\b[^>]{0,200}"begin"/g,
  )) {
    instructions += match[1] ?? (match[2] === undefined ? '\n' : `\n${match[2]}\n`)
    if (instructions.length > 1_000_000) break
  }
  if (/^\s*DDE(?:AUTO)?\s/im.test(plain(instructions)) || /<office:dde-source\b/i.test(text))
    sayDde(scene)
}

function sayBasic(content: Buffer, scene: Scene): void {
  const text = textOf(content)
  if (!/\b(?:sub|function)\s+\w/i.test(text)) return
  const policy = scene.settings['content.macros']
  const hostile = /\b(?:shell|createunoservice\s*\(\s*(?:&quot;|")com\.sun\.star\.system)/i.test(
    text,
  )
  scene.say(
    hostile ? 'OFFICE_MACROS_RUN' : 'OFFICE_MACROS',
    policy === 'pass' ? 0 : hostile ? 8 : 2,
    `${scene.path} holds macros of LibreOffice${hostile ? ' that start programs' : ''}.`,
  )
}
