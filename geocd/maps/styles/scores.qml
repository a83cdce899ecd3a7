<!DOCTYPE qgis PUBLIC 'http://mrcc.com/qgis.dtd' 'SYSTEM'>
<!-- 255 is 'not observed', and above the ramp, which clips. -->
<qgis version="3.22.0" styleCategories="Symbology">
  <pipe>
    <rasterrenderer type="singlebandpseudocolor" band="1" opacity="1" nodataColor="" alphaBand="-1" classificationMin="0" classificationMax="254">
      <rasterTransparency/>
      <rastershader>
        <colorrampshader colorRampType="INTERPOLATED" classificationMode="1" clip="1" minimumValue="0" maximumValue="254" labelPrecision="2">
          <item value="0" color="#fff7bc" alpha="0" label="0.0 (no change)"/>
          <item value="64" color="#fec44f" alpha="110" label="0.25"/>
          <item value="127" color="#f0703c" alpha="190" label="0.5"/>
          <item value="191" color="#c51b7d" alpha="230" label="0.75"/>
          <item value="254" color="#49006a" alpha="255" label="1.0 (change)"/>
          <rampLegendSettings useContinuousLegend="0" minimumLabel="" maximumLabel="" prefix="" suffix="" direction="0" orientation="2"/>
        </colorrampshader>
      </rastershader>
    </rasterrenderer>
  </pipe>
  <blendMode>0</blendMode>
</qgis>
