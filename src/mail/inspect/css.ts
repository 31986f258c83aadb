/**
 * The few style properties by which mail hides text: display, size, colour, place. No cascade
 * beyond classes, names and ids of one level: what cannot be told is taken for visible.
 */

/** What a style says itself; null: it says nothing about that. */
export type Style = {
  /** Not shown at all, whatever stands inside. */
  readonly gone: boolean
  /** Font size in CSS pixels. */
  readonly size: number | null
  /** 0xrrggbb. */
  readonly ink: number | null
  /** 0xrrggbb, or `unknown` for an image, a gradient or a colour that we cannot read. */
  readonly paper: number | 'unknown' | null
}

const NO_STYLE: Style = { gone: false, size: null, ink: null, paper: null }

/** Characters of one style that are read. */
const STYLE_CHARS_MAX = 2_000
/** Different styles that are remembered; newsletters repeat a few. */
const KNOWN_MAX = 2_000

const known = new Map<string, Style>()

/** Reads the declarations of a style attribute or a rule. Never throws. */
export function readStyle(text: string): Style {
  const written = text.length > STYLE_CHARS_MAX ? text.slice(0, STYLE_CHARS_MAX) : text
  const found = known.get(written)
  if (found !== undefined) return found
  const style = parse(written)
  if (known.size >= KNOWN_MAX) known.clear()
  known.set(written, style)
  return style
}

function parse(written: string): Style {
  let gone = false
  let flat = false
  let clipped = false
  let size: number | null = null
  let ink: number | null = null
  let paper: Style['paper'] = null
  for (const declaration of written.toLowerCase().replace(COMMENT, '').split(';')) {
    const colon = declaration.indexOf(':')
    if (colon === -1) continue
    const name = declaration.slice(0, colon).trim()
    const value = declaration
      .slice(colon + 1)
      .replace('!important', '')
      .trim()
    switch (name) {
      case 'display':
        gone ||= value === 'none'
        break
      case 'visibility':
        gone ||= value === 'hidden' || value === 'collapse'
        break
      case 'opacity':
        gone ||= Number.parseFloat(value) < 0.05
        break
      case 'mso-hide':
        // Outlook alone hides it: everybody else sees it.
        break
      case 'font-size':
        size = pixels(value)
        break
      case 'font':
        size = pixels(/(?:^|\s)([\d.]+(?:px|pt|em|rem|%))/.exec(value)?.[1] ?? '')
        break
      case 'color':
        ink = colour(value)
        if (value === 'transparent') gone = true
        break
      case 'background':
      case 'background-color':
        paper = background(value)
        break
      case 'background-image':
        if (value !== 'none') paper = 'unknown'
        break
      case 'max-height':
      case 'height':
      case 'max-width':
      case 'width':
        flat ||= /^0*(?:\.0+|[01])?(?:px|pt|em|%)?$/.test(value) && value !== ''
        break
      case 'overflow':
        clipped ||= value === 'hidden' || value === 'clip'
        break
      case 'text-indent':
      case 'left':
      case 'top':
      case 'margin-left':
      case 'margin-top':
        gone ||= Number.parseFloat(value) <= -500
        break
      case 'clip':
        gone ||= /^rect\(\s*0(?:px)?[\s,]+0(?:px)?[\s,]+0(?:px)?[\s,]+0(?:px)?\s*\)$/.test(value)
        break
      default:
    }
  }
  return { gone: gone || (flat && clipped), size, ink, paper }
}

const COMMENT = /\/\*[^*]*\*\//g

function pixels(value: string): number | null {
  const match = /^(\d*\.?\d+)(px|pt|em|rem|ex|%|)$/.exec(value)
  if (match === null) return null
  const number = Number(match[1])
  if (number === 0) return 0
  switch (match[2]) {
    case 'px':
    case '':
      return number
    case 'pt':
      return (number * 4) / 3
    // Of a size that we don't know: only a vanishing share is told.
    case '%':
      return number < 10 ? 1 : null
    default:
      return number < 0.1 ? 1 : null
  }
}

const NAMED: Readonly<Record<string, number>> = {
  white: 0xffffff,
  snow: 0xfffafa,
  ivory: 0xfffff0,
  whitesmoke: 0xf5f5f5,
  ghostwhite: 0xf8f8ff,
  floralwhite: 0xfffaf0,
  black: 0,
  red: 0xff0000,
  green: 0x008000,
  blue: 0x0000ff,
  yellow: 0xffff00,
  navy: 0x000080,
  gray: 0x808080,
  grey: 0x808080,
  silver: 0xc0c0c0,
}

/** A colour as 0xrrggbb; null when it is none that we read. */
export function colour(value: string): number | null {
  const named = NAMED[value]
  if (named !== undefined) return named
  const hex = /^#?([0-9a-f]{6}|[0-9a-f]{3})(?:[0-9a-f]{2})?$/.exec(value)?.[1]
  if (hex !== undefined) {
    return Number.parseInt(hex.length === 6 ? hex : hex.replace(/./g, '$&$&'), 16)
  }
  const rgb = /^rgba?\(\s*(\d{1,3})[\s,]+(\d{1,3})[\s,]+(\d{1,3})/.exec(value)
  if (rgb === null) return null
  const [red, green, blue] = [1, 2, 3].map((index) => Math.min(255, Number(rgb[index])))
  return ((red ?? 0) << 16) | ((green ?? 0) << 8) | (blue ?? 0)
}

function background(value: string): Style['paper'] {
  if (value === '' || value === 'none' || value === 'transparent' || value === 'inherit') {
    return null
  }
  if (value.includes('(') && !value.startsWith('rgb')) return 'unknown'
  return colour(value.split(/\s+/)[0] ?? '') ?? colour(value) ?? 'unknown'
}

/** No channel differs by more than an eye sees. */
export function alike(ink: number, paper: number): boolean {
  for (const shift of [16, 8, 0]) {
    if (Math.abs(((ink >> shift) & 255) - ((paper >> shift) & 255)) > 20) return false
  }
  return true
}

/** 0 to 255. */
export function brightness(paper: number): number {
  return ((paper >> 16) * 77 + ((paper >> 8) & 255) * 150 + (paper & 255) * 29) >> 8
}

/** Rules of `<style>` for one class, id or element; complex selectors are left out. */
export type Sheet = {
  readonly rules: Map<string, Style>
  /** A selector that we don't follow sets a background: colours tell nothing then. */
  vague: boolean
}

const RULES_MAX = 500
const SHEET_CHARS_MAX = 64 * 1024

/** Adds the rules of one style element to `sheet`. Rules for other media are left out. */
export function readSheet(text: string, sheet: Sheet): void {
  const css = text.slice(0, SHEET_CHARS_MAX).replace(/<!--|-->/g, '')
  let at = 0
  while (sheet.rules.size < RULES_MAX) {
    const open = css.indexOf('{', at)
    if (open === -1) return
    const selector = css.slice(at, open).replace(COMMENT, '').trim()
    if (selector.startsWith('@')) {
      at = pastBlock(css, open)
      continue
    }
    const close = css.indexOf('}', open)
    const body = css.slice(open + 1, close === -1 ? css.length : close)
    const style = readStyle(body)
    if (style !== NO_STYLE) {
      for (const each of selector.toLowerCase().split(',')) {
        const simple = each.trim()
        if (/^[.#]?[\w-]+$/.test(simple)) sheet.rules.set(simple, style)
        else if (style.paper !== null) sheet.vague = true
      }
    }
    if (close === -1) return
    at = close + 1
  }
}

function pastBlock(css: string, open: number): number {
  let depth = 0
  for (let at = open; at < css.length; at += 1) {
    const code = css.charCodeAt(at)
    if (code === 123) depth += 1
    else if (code === 125) {
      depth -= 1
      if (depth === 0) return at + 1
    }
  }
  return css.length
}
