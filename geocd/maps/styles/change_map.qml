<!DOCTYPE qgis PUBLIC 'http://mrcc.com/qgis.dtd' 'SYSTEM'>
<!-- QGIS takes the nodata colour as premultiplied: 64 at alpha 128 is a veil of grey 128. -->
<qgis version="3.22.0" styleCategories="Symbology">
  <pipe>
    <rasterrenderer type="paletted" band="1" opacity="1" nodataColor="64,64,64,128" alphaBand="-1">
      <rasterTransparency/>
      <colorPalette>
        <paletteEntry value="0" color="#000000" alpha="0" label="No change"/>
        <paletteEntry value="1" color="#d55e00" alpha="255" label="Building change"/>
        <paletteEntry value="2" color="#56b4e9" alpha="255" label="Road change"/>
        <paletteEntry value="3" color="#cc79a7" alpha="255" label="Change of unknown kind"/>
        <paletteEntry value="255" color="#808080" alpha="128" label="Not observed"/>
      </colorPalette>
    </rasterrenderer>
  </pipe>
  <blendMode>0</blendMode>
</qgis>
