/** Not written yet. */
import type { Inspector } from './look.ts'

export const rules: Inspector = { name: 'rules', inspect: () => [] }
